"""Following latents along training: their mean activation at every snapshot, and the EM rate of its answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

import pandas as pd

from persona_probe.behaviour.em_rates import em_rate
from persona_probe.behaviour.judges.judge import Judge, check_judge, judge_answers
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types, what_is
from persona_probe.latents.courses.track_result import (
    AXIS,
    LatentTrajectory,
    assemble,
    check_count,
    check_judged,
    check_steps,
    of_latents,
)
from persona_probe.latents.encoding.encode import GROUPS, LatentStatistics, encode_latents
from persona_probe.latents.sae import Sae
from persona_probe.models.loading.snapshots import Snapshots
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling


def track_latents(
    before: Model,
    snapshots: Snapshots | Iterable[Model],
    sae: Sae,
    latents: Sequence[int],
    dialogues: Sequence[Dialogue],
    *,
    steps: Sequence[float],
    start: float = 0,
    judged: Mapping[float, pd.DataFrame] | None = None,
    definition: str = "betley",
    span: str = "generation",
    axis: str = AXIS,
    max_groups: int = GROUPS,
    tokens_per_batch: int | None = None,
    allow_unrelated: bool = False,
    progress: bool = False,
) -> LatentTrajectory:
    """The mean activations of chosen latents at ``before`` and at every snapshot, on the same texts.

    Wang et al. 2025 ("Persona features control emergent misalignment", arXiv:2506.19823, section 3) find that the
    toxic-persona latent is active before the evaluation sees misalignment; `lead_time` says by how much. Snapshots may
    come from narrow training, from realignment (``before`` is then the misaligned model), or be models trained with
    more and more of something (``axis="share of bad data"``).

    Args:
        before: the model from which all changes are measured.
        snapshots: the snapshots in order; with `load_snapshots` one at a time is in memory.
        sae: one SAE for all models.
        latents: the latents to track; choose them on other texts or another training, or they look better than they
            are.
        dialogues: the texts that all models read, usually ``before``'s own answers to questions on which no latent was
            chosen.
        steps: the step of each snapshot, increasing.
        start: the step of ``before``.
        judged: judged tables (`judge_answers`) by step: of ``before`` (at ``start``), of the last snapshot, and of any
            between.
        definition: which EM rate.
        span: which tokens are read.
        axis: what ``steps`` are, for figures and sentences.
        max_groups: the greatest number of groups of questions; intervals are over groups.
        tokens_per_batch: padded tokens per forward pass.
        allow_unrelated: only warn if the SAE does not fit.
        progress: show a progress bar for each snapshot's reading.

    Raises:
        PersonaProbeError: if there is no snapshot, there is not one step for each, or steps do not increase from
            ``start``; if tables are missing or belong to other steps; for an unknown definition; and as in
            `encode_latents`.
    """
    check_types(
        snapshots=(snapshots, Snapshots, Iterable),
        before=(before, Model),
        sae=(sae, Sae),
        dialogues=(dialogues, [Dialogue]),
        steps=(steps, [NUMBER]),
        max_groups=(max_groups, WHOLE),
    )
    _check_not_a_path(snapshots)
    tables = dict(judged or {})
    places = check_steps(steps, start)
    if tables:
        check_judged(tables, places)
        em_rate(tables[places[0]], definition)
    read = {
        "span": span,
        "max_groups": max_groups,
        "tokens_per_batch": tokens_per_batch,
        "allow_unrelated": allow_unrelated,
    }
    measured = _read(sae, latents, snapshots, before, dialogues, places, lambda _step, _model: None, progress, **read)
    return assemble(latents, places, measured, tables, definition, axis)


def _check_not_a_path(snapshots: object) -> None:
    if isinstance(snapshots, str | os.PathLike):
        raise PersonaProbeError(f"snapshots is {what_is(snapshots)}; load them with pp.models.load_snapshots(paths)")


def follow_training(
    before: Model,
    snapshots: Snapshots | Iterable[Model],
    sae: Sae,
    latents: Sequence[int],
    dialogues: Sequence[Dialogue],
    questions: Sequence[Dialogue],
    judge: Judge,
    *,
    steps: Sequence[float],
    start: float = 0,
    definition: str = "betley",
    span: str = "generation",
    axis: str = AXIS,
    sampling: Sampling | None = None,
    max_groups: int = GROUPS,
    tokens_per_batch: int | None = None,
    allow_unrelated: bool = False,
    progress: bool = False,
) -> LatentTrajectory:
    """The trajectory of `track_latents`, with the EM rate of every model's answers to ``questions``.

    Answers are sampled and judged while each model is in memory.

    Args:
        before: the model from which all changes are measured.
        snapshots: the snapshots in order; with `load_snapshots` one at a time is in memory.
        sae: one SAE for all models.
        latents: the latents to track.
        dialogues: the texts that all models read.
        questions: the questions that all models answer; the EM rate's interval is over them.
        judge: the judge of the answers.
        steps: the step of each snapshot, increasing.
        start: the step of ``before``.
        definition: which EM rate.
        span: which tokens are read.
        axis: what ``steps`` are, for figures and sentences.
        sampling: how answers are sampled, the same at every step; default ``Sampling()``.
        max_groups: the greatest number of groups of questions; intervals are over groups.
        tokens_per_batch: padded tokens per forward pass.
        allow_unrelated: only warn if the SAE does not fit.
        progress: show progress bars.

    Raises:
        PersonaProbeError: as in `track_latents` and `judge_answers`.
    """
    check_judge(judge)
    check_types(
        snapshots=(snapshots, Snapshots, Iterable),
        before=(before, Model),
        sae=(sae, Sae),
        dialogues=(dialogues, [Dialogue]),
        questions=(questions, [Dialogue]),
        sampling=(sampling, Sampling, None),
        steps=(steps, [NUMBER]),
        max_groups=(max_groups, WHOLE),
    )
    _check_not_a_path(snapshots)
    tables: dict[float, pd.DataFrame] = {}

    def ask(step: float, model: Model) -> None:
        answers = model.generate(questions, sampling, progress=progress)
        tables[step] = judge_answers(judge, answers, step=step)
        em_rate(tables[step], definition)

    places = check_steps(steps, start)
    ask(places[0], before)
    read = {
        "span": span,
        "max_groups": max_groups,
        "tokens_per_batch": tokens_per_batch,
        "allow_unrelated": allow_unrelated,
    }
    measured = _read(sae, latents, snapshots, before, dialogues, places, ask, progress, **read)
    return assemble(latents, places, measured, tables, definition, axis)


def _read(
    sae: Sae,
    latents: Sequence[int],
    snapshots: Snapshots | Iterable[Model],
    before: Model,
    dialogues: Sequence[Dialogue],
    places: Sequence[float],
    also: Callable[[float, Model], None],
    progress: bool,
    **settings: Any,
) -> list[LatentStatistics]:
    """The statistics of the chosen latents in before and in each snapshot; ``also`` is called with each snapshot.

    Each snapshot reads together with before, so that the same tokens count (attention sinks are those of before).
    """
    wanted = sae.check_latents(latents)
    count = len(places) - 1
    if isinstance(snapshots, Sized):
        check_count(len(snapshots), count)
    statistics: list[LatentStatistics] = []
    for number, model in enumerate(snapshots):
        if number == count:
            check_count(number + 1, count)
        first, after = encode_latents([before, model], sae, dialogues, examples=0, progress=progress, **settings)
        statistics += [of_latents(first, wanted)] * (not statistics) + [of_latents(after, wanted)]
        also(places[number + 1], model)
    check_count(max(len(statistics) - 1, 0), count)
    return statistics
