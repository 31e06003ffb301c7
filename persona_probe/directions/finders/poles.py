"""The two sides that a finder contrasts, checked once for all finders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from persona_probe.activations.activations import Activations
from persona_probe.activations.questions import dialogues_of, questions_of
from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.question_exchange import QuestionExchange


@dataclass(frozen=True)
class Poles:
    """Activations with the trait and without it, of the same layers, width, span and reduction.

    Attributes:
        positive: ``(dialogue, layer, d_model)`` with the trait.
        negative: the same without it.
    """

    positive: Activations
    negative: Activations

    def __post_init__(self) -> None:
        """Raise if the difference between the poles would be meaningless."""
        positive, negative = self.positive, self.negative
        for name, pole in (("positive", positive), ("negative", negative)):
            if len(pole) == 0:
                raise PersonaProbeError(f"the {name} pole holds no dialogue: there is nothing to contrast")
        if positive.layers != negative.layers or positive.values.shape[2] != negative.values.shape[2]:
            raise PersonaProbeError(
                f"the poles differ in shape: positive has layers {positive.layers} of width "
                f"{positive.values.shape[2]}, negative {negative.layers} of width {negative.values.shape[2]}"
            )
        for key in ("span", "reduce"):
            if positive.source.get(key) != negative.source.get(key):
                raise PersonaProbeError(
                    f"the poles were captured with different {key}: {positive.source.get(key)!r} and "
                    f"{negative.source.get(key)!r}; their difference would measure this instead of the trait"
                )
        if positive.values.shape == negative.values.shape and np.array_equal(positive.values, negative.values):
            raise PersonaProbeError("the two poles are identical: the direction between them is zero")

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer numbers of both poles."""
        return self.positive.layers

    @cached_property
    def paired(self) -> bool:
        """Whether the rows of both poles are pairs: the same ``id`` and question, in the same order.

        Dialogues without ids are pairs if their questions are the same.
        """
        sides = self.positive, self.negative
        if len(sides[0]) != len(sides[1]):
            return False
        asked, ids = ([list(name(side)) for side in sides] for name in (questions_of, dialogues_of))
        return asked[0] == asked[1] and ids[0] == ids[1] and all(kind != "row" for kind, _ in asked[0])

    def difference(self) -> Float[np.ndarray, "layer d_model"]:
        """Mean of positive minus mean of negative dialogues, in float64."""
        return np.asarray(
            self.positive.values.mean(axis=0, dtype=np.float64) - self.negative.values.mean(axis=0, dtype=np.float64)
        )

    def differences(self) -> Float[np.ndarray, "dialogue layer d_model"]:
        """Positive minus negative, pair by pair.

        Raises:
            PersonaProbeError: if the poles are not pairs.
        """
        if not self.paired:
            raise PersonaProbeError(
                f"this finder needs pairs: the same dialogues, with ids, in the same order in both poles; positive has "
                f"{len(self.positive)} and negative {len(self.negative)} that do not match one to one"
            )
        return self.positive.values - self.negative.values

    def stacked(self) -> tuple[Float[np.ndarray, "row layer d_model"], Bool[np.ndarray, "... row"]]:
        """All rows, positive first, and whether each is positive."""
        return np.concatenate([self.positive.values, self.negative.values]), self.is_positive

    def split(self, rng: np.random.Generator) -> Bool[np.ndarray, "... row"] | None:
        """Whether each row of both poles is in the first of two random halves, which share no question.

        They share no dialogue, if there is only one question. None if a pole is not in both halves, or a row is
        `nameless`: then halves could share its question.
        """
        if self.nameless:
            return None
        chosen = set(rng.permutation(self._units)[: len(self._units) // 2])
        first = np.array([name in chosen for name in self._asked], dtype=bool)
        n = len(self.positive)
        return first if all(0 < side.sum() < side.size for side in (first[:n], first[n:])) else None

    @cached_property
    def nameless(self) -> int:
        """How many rows are known neither by different questions nor by an id, so that pairs could be separated."""
        return sum(kind == "row" for kind, _ in self._asked)

    def part(self, rows: Bool[np.ndarray, "... row"]) -> Poles:
        """The poles with some of the rows of both."""
        n = len(self.positive)
        return Poles(self.positive.where(rows[:n]), self.negative.where(rows[n:]))

    @cached_property
    def exchange(self) -> QuestionExchange:
        """How whole questions (dialogues, if there is only one question) can change places between the poles."""
        return QuestionExchange.of(self.is_positive, self.codes)

    @cached_property
    def exchange_apart(self) -> QuestionExchange:
        """The same with a question's positive and negative rows apart, for directions (`QuestionExchange.of`)."""
        return QuestionExchange.of(self.is_positive, self.codes, apart=True)

    @cached_property
    def exchanged(self) -> str:
        """What changes places as a whole: ``question``; ``dialogue`` if all rows answer one question."""
        return "question" if len(set(questions_of(self.positive, self.negative))) > 1 else "dialogue"

    @cached_property
    def _asked(self) -> np.ndarray:
        """``(row,)`` the name of what rows of both poles share: the question, or the dialogue."""
        named = questions_of if self.exchanged == "question" else dialogues_of
        return named(self.positive, self.negative)

    @cached_property
    def _units(self) -> np.ndarray:
        """The different names of `_asked`, sorted."""
        names = sorted(set(self._asked), key=lambda name: tuple(map(str, name)))
        units = np.empty(len(names), dtype=object)
        units[:] = names
        return units

    @cached_property
    def codes(self) -> Int[np.ndarray, "... row"]:
        """``(row,)`` integer codes of what rows of both poles share."""
        numbers: dict[object, int] = {}
        return np.array([numbers.setdefault(name, len(numbers)) for name in self._asked], dtype=np.intp)

    @property
    def is_positive(self) -> Bool[np.ndarray, "... row"]:
        """Whether each row of both poles is positive; positive rows are first."""
        return np.arange(len(self.positive) + len(self.negative)) < len(self.positive)

    def shuffled(self, rng: np.random.Generator, *, centred: bool = True) -> Poles:
        """The poles as if they did not differ: means of whole questions change places (`QuestionExchange`).

        Args:
            rng: draws which of them.
            centred: whether each pole's mean is subtracted first, and pairs are separated. For directions that know
                nothing of the trait: otherwise a large difference between the poles would be the largest part of the
                spread over rows, and the null would point along it; and pairs differ mainly in how strongly the trait
                shows. Without it the null is that of a permutation test of the length.
        """
        values, n = self.stacked()[0], len(self.positive)
        exchange = self.exchange_apart if centred else self.exchange
        drawn, ones = exchange.sample(1, rng)[0], np.ones(len(values))
        for column in range(len(self.layers)):
            rows = values[:, column]
            for pole in (rows[:n], rows[n:]) if centred else ():
                pole -= pole.mean(axis=0)
            means = exchange.means(rows, ones)
            rows += (means[drawn] - means)[exchange.cell]
        if centred and self.paired:
            values[n:] = values[n:][rng.permutation(n)]
        sides = ((values[:n], self.positive), (values[n:], self.negative))
        return Poles(*(Activations(rows, side.table, side.layers, side.source) for rows, side in sides))
