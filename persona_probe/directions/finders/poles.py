"""The two sides that a finder contrasts, checked once for all finders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from persona_probe.activations.activations import Activations
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
        """Whether the rows of both poles are pairs: the same ``id`` and ``question``, in the same order."""
        ours, theirs = self.positive.table, self.negative.table
        if len(ours) != len(theirs) or "id" not in ours or ours["id"].isna().any():
            return False
        return all(list(ours[name]) == list(theirs[name]) for name in ("id", "question") if name in ours)

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

    def halves(self, rng: np.random.Generator) -> tuple[Poles, Poles] | None:
        """Two halves that share no question (no dialogue, if there is only one question); None if there are too few."""
        unit = "question" if self._count("question") > 1 else "id"
        if self._count(unit) < 2:
            return None
        names = sorted(self._names(self.positive, unit) | self._names(self.negative, unit))
        chosen = set(rng.permutation(np.array(names, dtype=object))[: len(names) // 2])
        parts = []
        for wanted in (True, False):
            sides = [
                side.where([(str(name) in chosen) == wanted for name in side.table[unit]])
                for side in (self.positive, self.negative)
            ]
            if not all(len(side) for side in sides):
                return None
            parts.append(Poles(*sides))
        return parts[0], parts[1]

    @cached_property
    def exchange(self) -> QuestionExchange:
        """How whole questions (dialogues, if there is only one question) can change places between the poles."""
        return QuestionExchange.of(self.is_positive, self._asked)

    @cached_property
    def exchange_apart(self) -> QuestionExchange:
        """The same with a question's positive and negative rows apart, for directions (`QuestionExchange.of`)."""
        return QuestionExchange.of(self.is_positive, self._asked, apart=True)

    @cached_property
    def exchanged(self) -> str:
        """What changes places as a whole: ``question``; ``id`` if all rows answer one question, or name none."""
        questions = self._names(self.positive, "question") | self._names(self.negative, "question")
        return "question" if len(questions) > 1 else "id"

    @cached_property
    def _asked(self) -> np.ndarray:
        """``(row,)`` integer codes of what rows of both poles share."""
        unit = self.exchanged
        names: list[tuple[str, object]] = []
        for pole, side in (("positive", self.positive), ("negative", self.negative)):
            column = side.table[unit] if unit in side.table else pd.Series([None] * len(side))
            # a row without a name is like no other row
            rows = enumerate(column.tolist())
            names += [(pole, number) if pd.isna(name) else (unit, str(name)) for number, name in rows]
        return np.asarray(pd.factorize(pd.Series(names))[0])

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

    def _count(self, column: str) -> int:
        return min(len(self._names(side, column)) for side in (self.positive, self.negative))

    @staticmethod
    def _names(side: Activations, column: str) -> set[Any]:
        return {str(name) for name in side.table[column]} if column in side.table else set()
