"""How much a study asks of its models: answers, texts read and rows trained on, by stage, before anything is loaded.

Every stage says its own part (`persona_probe.study.stage.Stage.work`). What depends on the answers (how many are empty,
or coherent) is counted at its most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.runs.config import StudyConfig
from persona_probe.study.material import Material

_SAMPLE = 64
"""Texts whose tokens are counted; the mean stands for the others."""


@dataclass(frozen=True)
class Work:
    """What is asked of the models, by one stage or a part of it.

    Attributes:
        answers: how many are sampled.
        answer_tokens: of those, prompts included, each answer as long as it may be.
        texts: how many are read for their activations.
        text_tokens: of those.
        trained_tokens: that fine-tuning steps go through, forward and backward.
    """

    answers: int = 0
    answer_tokens: int = 0
    texts: int = 0
    text_tokens: int = 0
    trained_tokens: int = 0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.answer_tokens + self.text_tokens + self.trained_tokens

    def __add__(self, other: Work) -> Work:
        """Both together."""
        return Work(
            self.answers + other.answers,
            self.answer_tokens + other.answer_tokens,
            self.texts + other.texts,
            self.text_tokens + other.text_tokens,
            self.trained_tokens + other.trained_tokens,
        )


@dataclass(frozen=True)
class Sizes:
    """What a stage's work follows from.

    Attributes:
        config: the study.
        material: its texts.
        template: the model's.
        n_layers: the model's.
    """

    config: StudyConfig
    material: Material
    template: ChatTemplate
    n_layers: int

    @property
    def n_models(self) -> int:
        """How many models are compared: before, after and, where there is one, the control."""
        return 3 if self.material.control or self.config.control is not None else 2

    @property
    def realignment_steps(self) -> int:
        """How many numbers of benign examples above 0 the model after is realigned with."""
        return sum(n > 0 for n in set(self.config.realignment.examples)) if self.material.benign else 0

    def length(self, dialogues: Sequence[Dialogue]) -> float:
        """The mean number of tokens of some dialogues, from an even sample of them."""
        if not dialogues:
            return 0.0
        sample = dialogues[:: max(1, len(dialogues) // _SAMPLE)]
        return sum(len(self.template.encode(dialogue).input_ids) for dialogue in sample) / len(sample)

    def work(self, questions: Sequence[Dialogue], *, answers: int = 0, texts: int = 0) -> Work:
        """``answers`` sampled to ``questions`` in all, and as many ``texts`` of that length read."""
        each = self.length(questions) + self.config.sampling.max_new_tokens
        return Work(answers, round(answers * each), texts, round(texts * each))
