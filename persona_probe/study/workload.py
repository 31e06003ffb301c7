"""How much a study asks of its models: answers, texts read and rows trained on, by stage, before anything is loaded.

What depends on the answers (how many are empty, or coherent) is counted at its most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.latents.causal.rank import STRENGTHS
from persona_probe.runs.config import StudyConfig
from persona_probe.steering.search.candidates import Goal
from persona_probe.study.material import Material
from persona_probe.study.stages.steer import grid_of
from persona_probe.study.stages.train import snapshot_steps

_SAMPLE = 64
"""Texts whose tokens are counted; the mean stands for the others."""


@dataclass(frozen=True)
class StageWork:
    """What one stage asks for.

    Attributes:
        stage: its name.
        answers: how many are sampled.
        answer_tokens: of those, prompts included, each answer as long as it may be.
        texts: how many are read for their activations.
        text_tokens: of those.
        trained_tokens: that fine-tuning steps go through, forward and backward.
    """

    stage: str
    answers: int = 0
    answer_tokens: int = 0
    texts: int = 0
    text_tokens: int = 0
    trained_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.answer_tokens + self.text_tokens + self.trained_tokens


def workload(config: StudyConfig, material: Material, template: ChatTemplate, n_layers: int) -> list[StageWork]:
    """The work of each stage that runs the model, in order.

    Args:
        config: the study.
        material: its texts.
        template: the model's.
        n_layers: the model's.
    """
    length = _lengths(template)
    training, realignment, search = config.training, config.realignment, config.steering
    development, reported = material.development, material.reported

    def work(
        stage: str, questions: Sequence[Dialogue], answers: int = 0, texts: int = 0, trained: float = 0
    ) -> StageWork:
        """``answers`` sampled to ``questions`` in all, and as many ``texts`` of that length read."""
        each = length(questions) + config.sampling.max_new_tokens
        return StageWork(stage, answers, round(answers * each), texts, round(texts * each), round(trained))

    steps = training.steps * training.batch
    trained = steps * sum(
        length(rows)
        for rows, given in ((material.narrow, config.after), (material.control, config.control))
        if given is None
    )
    models = 3 if material.control or config.control is not None else 2
    everything = [*material.unseen, *material.open, *material.trained]
    # Contrast of context reads every answer twice, the reference, the fine-tuning shift and other traits once each.
    find = [work("find", development, len(development), texts=(4 + len(material.other_traits)) * len(development))]
    track = [
        work("track", development, texts=models * len(development)),
        work("track", reported, len(reported), texts=models * len(reported)),
    ]
    compare = [work("compare", reported, texts=2 * len(reported))]
    steer = []
    if config.judge is not None:
        find.append(work("find", material.unseen, len(material.unseen), texts=len(material.unseen)))
        chosen_on, measured_on = development[: search.answers_per_setting], reported[: search.reported_answers]
        null = search.random_directions * min(search.answers_per_random, len(measured_on))
        layers = n_layers if search.layers is None else len(search.layers)
        for goal in get_args(Goal):
            settings = grid_of(search).count(layers, goal)
            steer.append(work("steer", chosen_on, (1 + settings) * len(chosen_on)))
            steer.append(work("steer", measured_on, (1 + len(search.kinds)) * len(measured_on) + null))
    latents = _latents(config, material, work, models)
    sizes = set(realignment.examples) | {0}
    asked = reported[: realignment.answers]
    steps = realignment.steps * training.batch * sum(n > 0 for n in sizes)
    realign = [
        work("realign", asked, len(sizes) * len(asked), trained=steps * length(material.benign)),
        work("realign", reported, texts=(1 + len(sizes)) * len(reported)),
    ]
    if not material.benign:
        realign = []
    stages = [
        [StageWork("fine-tune", trained_tokens=round(trained))],
        [work("measure", everything, models * len(everything))],
        find,
        track,
        compare,
        steer,
        latents,
        realign,
    ]
    return [_sum(parts) for parts in stages if parts]


def _latents(config: StudyConfig, material: Material, work: Callable[..., StageWork], models: int) -> list[StageWork]:
    """As many latents as may be steered, to suppress and to induce."""
    settings = config.latents
    if settings.sae is None:
        return []
    own = work("latents", material.development, texts=(models + 4) * len(material.development))
    read = work("latents", material.reported, texts=models * len(material.reported))
    snapshots = len(snapshot_steps(config))
    course = work("latents", material.reported, texts=2 * snapshots * len(material.reported))
    if config.judge is None:
        return [own, read, course]
    chosen_on = material.development[: settings.answers_per_strength]
    measured_on = material.reported[: settings.reported_answers]
    most = max(len(factors) for factors in STRENGTHS.values())  # how many of each kind depends on what moves
    strengths = len(STRENGTHS) * (1 + settings.top * most)
    conditions = 2 * (1 + settings.top * (1 + settings.matched)) + 2 + settings.matched
    return [
        own,
        read,
        course,
        work("latents", measured_on, (1 + snapshots) * len(measured_on) if snapshots else 0),
        work("latents", chosen_on, strengths * len(chosen_on)),
        work("latents", measured_on, conditions * len(measured_on)),
    ]


def _sum(parts: Sequence[StageWork]) -> StageWork:
    fields = ("answers", "answer_tokens", "texts", "text_tokens", "trained_tokens")
    return StageWork(parts[0].stage, **{name: sum(getattr(part, name) for part in parts) for name in fields})


def _lengths(template: ChatTemplate) -> Callable[[Sequence[Dialogue]], float]:
    """The mean number of tokens of some dialogues, from an even sample of them."""

    def length(dialogues: Sequence[Dialogue]) -> float:
        if not dialogues:
            return 0.0
        sample = dialogues[:: max(1, len(dialogues) // _SAMPLE)]
        return sum(len(template.encode(dialogue).input_ids) for dialogue in sample) / len(sample)

    return length
