"""What forward passes say about an intervention before anything is sampled: its KL, and how far behaviour moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float

from persona_probe.activations.scoring import answer_log_probs
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NothingMeasuredError, PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.steer_context import steer
from persona_probe.steering.strength.divergence import measure_divergence

BASE, TRAIT = 0, 1
"""The poles of a reading."""
_AT_ONCE = 32
"""The most settings that are read together."""


@dataclass(frozen=True)
class PoleReading:
    """What forward passes say about some interventions.

    Attributes:
        kl: ``(intervention,)`` mean KL to the unsteered model on its own answers, in nats per token.
        unsteered: ``(pole, question)`` log-probability (nats per token) of the answers without the trait (pole `BASE`)
            and of those with it (`TRAIT`), without steering.
        moved: ``(intervention, pole, question)`` how far each intervention moves it.
    """

    kl: Float[np.ndarray, "... intervention"]
    unsteered: Float[np.ndarray, "pole question"]
    moved: Float[np.ndarray, "intervention pole question"]


def gains(moved: Float[np.ndarray, "pole question"], sign: int) -> tuple[float, float]:
    """How far behaviour moves towards the goal, in nats per token, on average over questions.

    Args:
        moved: change of the log-probability of both poles.
        sign: 1 if answers with the trait are wanted, -1 if those without it are.

    Returns:
        How much the wanted answers gain on the other ones, and how much likelier they become. A model that breaks finds
        both kinds equally unlikely: the first can rise then, the second cannot.

    >>> import numpy as np
    >>> from persona_probe.steering.search.reading import gains
    >>> breaking, inducing = np.array([[-3.0], [-1.0]]), np.array([[-0.5], [0.25]])
    >>> gains(breaking, sign=1), gains(inducing, sign=1)
    ((2.0, -1.0), (0.75, 0.25))
    """
    base, trait = moved.mean(axis=1)
    return float(sign * (trait - base)), float(trait if sign > 0 else base)


class Reader(Protocol):
    """A measure of behaviour that needs forward passes only."""

    @property
    def name(self) -> str:
        """What is measured, as a sentence names it."""
        ...

    def read(self, interventions: Sequence[Intervention]) -> PoleReading:
        """The KL of each intervention, and how far it moves behaviour."""
        ...


class Pair(Protocol):
    """A question with answers of both kinds, such as a `persona_probe.behaviour.PreferencePair`."""

    @property
    def name(self) -> str:
        """The question's name."""
        ...

    @property
    def question(self) -> Dialogue:
        """The dialogue that is answered."""
        ...

    @property
    def aligned(self) -> Sequence[str]:
        """Wordings of the answer without the trait."""
        ...

    @property
    def misaligned(self) -> Sequence[str]:
        """Wordings of the answer with the trait."""
        ...


class AnswerReader:
    """Behaviour as the log-probability per token of answers with the trait, and of answers without it.

    For a question each is the mean over wordings; KL is measured on the model's own answers.

    Args:
        model: which model is steered.
        own: its own answers.
        base: for each question, its answers without the trait.
        trait: for each question, its answers with the trait.
        name: what is measured.
        progress: show bars.
    """

    def __init__(
        self,
        model: Model,
        own: Sequence[Dialogue],
        base: Sequence[Sequence[Dialogue]],
        trait: Sequence[Sequence[Dialogue]],
        *,
        name: str,
        progress: bool = False,
    ) -> None:
        self.name = name
        self._model, self._progress = model, progress
        self._own = list(own)
        texts = [(side, place, text) for side, texts in enumerate((base, trait)) for place, text in enumerate(texts)]
        self._answers = [(side, place, wording) for side, place, wordings in texts for wording in wordings]
        self._shape = (2, len(base))

    def read(self, interventions: Sequence[Intervention]) -> PoleReading:
        """The KL of each intervention, and how far it moves the preference."""
        kl = measure_divergence(self._model, interventions, self._own, progress=self._progress).kl
        settings: list[Intervention | None] = [None, *interventions]
        parts = [self._poles(settings[start : start + _AT_ONCE]) for start in range(0, len(settings), _AT_ONCE)]
        poles = np.concatenate(parts)
        return PoleReading(kl.mean(axis=1), poles[0], poles[1:] - poles[0])

    def _poles(self, settings: Sequence[Intervention | None]) -> Float[np.ndarray, "setting pole question"]:
        """The log-probability per token of both poles; a question is read once under each setting, for all answers."""
        n_questions = self._shape[1]
        numbers = range(len(settings))
        with steer(self._model, [setting for setting in settings for _ in range(n_questions)]):
            sums, counts = answer_log_probs(
                self._model,
                [text for _ in numbers for _, _, text in self._answers],
                rows=[number * n_questions + place for number in numbers for _, place, _ in self._answers],
                progress=self._progress,
            )
        per_token = (sums / counts).reshape(len(settings), -1)
        found, wordings = np.zeros((len(settings), *self._shape)), np.zeros(self._shape)
        for column, (side, place, _) in enumerate(self._answers):
            found[:, side, place] += per_token[:, column]
            wordings[side, place] += 1
        return found / wordings


def own_answers_reader(
    model: Model,
    base: Sequence[Dialogue],
    trait: Sequence[Dialogue],
    *,
    own: Sequence[Dialogue],
    n: int,
    progress: bool = False,
) -> AnswerReader:
    """Reads the preference between answers that models gave with the trait and without it: nobody has to write any.

    Args:
        model: which model is steered.
        base: answers without the trait, one per question.
        trait: answers with the trait to the same questions, in the same order.
        own: the model's own answers, on which KL is measured; they may be among the others.
        n: how many questions are read.
        progress: show bars.

    Raises:
        PersonaProbeError: if there are not as many answers on both sides.
        NothingMeasuredError: if fewer than two questions have both.
    """
    if len(base) != len(trait):
        raise PersonaProbeError(f"there are {len(base)} answers without the trait and {len(trait)} with it")
    both = [
        pair for pair in zip(base, trait, strict=True) if all((answered.answer or "").strip() for answered in pair)
    ][:n]
    if len(both) < 2:
        raise NothingMeasuredError(
            f"{len(both)} of {len(base)} questions have an answer with text on both sides; a search needs two or more: "
            "ask more questions, or other ones"
        )
    poles = {side: [pair[column] for pair in both] for column, side in enumerate(("base", "trait"))}
    return AnswerReader(
        model,
        own,
        [[text] for text in poles["base"]],
        [[text] for text in poles["trait"]],
        name="preference between own answers with and without the trait",
        progress=progress,
    )


def pairs_reader(
    model: Model, own: Sequence[Dialogue], pairs: Sequence[Pair], *, progress: bool = False
) -> AnswerReader:
    """Reads the preference between the written answers of pairs.

    Args:
        model: which model is steered.
        own: its own answers, on which KL is measured.
        pairs: questions with aligned and misaligned answers.
        progress: show bars.
    """
    base = [[pair.question.with_answer(text) for text in pair.aligned] for pair in pairs]
    trait = [[pair.question.with_answer(text) for text in pair.misaligned] for pair in pairs]
    return AnswerReader(model, own, base, trait, name="preference between the pairs' answers", progress=progress)
