"""Following latents along training: their mean activation at every snapshot, and the EM rate of its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

import pandas as pd

from persona_probe.behaviour.em_rates import em_rate
from persona_probe.behaviour.judges.judge import Judge, judge_answers
from persona_probe.dialogue.dialogue import Dialogue
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
    sae: Sae,
    latents: Sequence[int],
    snapshots: Snapshots | Iterable[Model],
    before: Model,
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
    allow: bool = False,
    progress: bool = False,
) -> LatentTrajectory:
    """Mean activation of chosen latents at ``before`` and at every snapshot, on the same texts.

    Wang et al. 2025 ("Persona features control emergent misalignment", arXiv:2506.19823, section 3) find that the
    toxic-persona latent is active before the evaluation sees misalignment; `lead_time` says by how much. Snapshots may
    come from narrow training, from realignment (``before`` is then the misaligned model), or be models trained with
    more and more of something (``axis="share of bad data"``).

    Args:
        sae: one for all models.
        latents: which; choose them on other texts or another training, or they look better than they are.
        snapshots: in order; `load_snapshots` holds one in memory at a time.
        before: the model that all changes are measured from.
        dialogues: what all read, usually ``before``'s own answers to questions that no latent was chosen on.
        steps: where each snapshot stands, increasing.
        start: where ``before`` stands.
        judged: judged tables (`judge_answers`) by step: of ``before`` (at ``start``), the last snapshot, any between.
        definition: of the EM rate.
        span: which tokens.
        axis: what ``steps`` are, for figures and sentences.
        max_groups: of questions; intervals are over groups.
        tokens_per_batch: padded tokens a forward.
        allow: warn instead of refusing where the SAE does not fit.
        progress: show a bar for each snapshot's reading.

    Raises:
        PersonaProbeError: if there is no snapshot, or steps are not one for each, or do not increase from ``start``; if
            tables are missing or stand at other steps; for an unknown definition; and as `encode_latents`.
    """
    tables = dict(judged or {})
    places = check_steps(steps, start)
    if tables:
        check_judged(tables, places)
        em_rate(tables[places[0]], definition)
    read = {"span": span, "max_groups": max_groups, "tokens_per_batch": tokens_per_batch, "allow": allow}
    measured = _read(sae, latents, snapshots, before, dialogues, places, lambda _step, _model: None, progress, **read)
    return assemble(latents, places, measured, tables, definition, axis)


def follow_training(
    sae: Sae,
    latents: Sequence[int],
    snapshots: Snapshots | Iterable[Model],
    before: Model,
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
    allow: bool = False,
    progress: bool = False,
) -> LatentTrajectory:
    """`track_latents`, with every model's answers to ``questions`` sampled and judged while it is in memory.

    Args:
        sae: as in `track_latents`, and so are the arguments that are not named here.
        latents: which.
        snapshots: in order.
        before: the model that all changes are measured from.
        dialogues: what all read.
        questions: what all are asked, without answers; the EM rate's interval is over them.
        judge: who judges.
        steps: where each snapshot stands, increasing.
        start: where ``before`` stands.
        definition: of the EM rate.
        span: which tokens.
        axis: what ``steps`` are.
        sampling: how answers are sampled, the same at every step; default ``Sampling()``.
        max_groups: of questions.
        tokens_per_batch: padded tokens a forward.
        allow: warn instead of refusing where the SAE does not fit.
        progress: show bars.

    Raises:
        PersonaProbeError: as `track_latents`, and as `judge_answers`.
    """
    tables: dict[float, pd.DataFrame] = {}

    def ask(step: float, model: Model) -> None:
        answers = model.generate(questions, sampling, progress=progress)
        tables[step] = judge_answers(judge, answers, step=step)
        em_rate(tables[step], definition)

    places = check_steps(steps, start)
    ask(places[0], before)
    read = {"span": span, "max_groups": max_groups, "tokens_per_batch": tokens_per_batch, "allow": allow}
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
    """Statistics of before and of each snapshot, of the chosen latents alone; ``also`` is done with each snapshot.

    Each is read together with before, so that the same tokens count (attention sinks are before's).
    """
    wanted = sae.check_latents(latents)
    count = len(places) - 1
    if isinstance(snapshots, Sized):
        check_count(len(snapshots), count)
    kept: list[LatentStatistics] = []
    for number, model in enumerate(snapshots):
        if number == count:
            check_count(number + 1, count)
        first, after = encode_latents(sae, [before, model], dialogues, examples=0, progress=progress, **settings)
        kept += [of_latents(first, wanted)] * (not kept) + [of_latents(after, wanted)]
        also(places[number + 1], model)
    check_count(max(len(kept) - 1, 0), count)
    return kept
