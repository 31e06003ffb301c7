"""The two sides that a finder contrasts, checked once for all finders."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from persona_probe.activations.activations import Activations
from persona_probe.errors import PersonaProbeError


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
        values = np.concatenate([self.positive.values, self.negative.values])
        return values, np.arange(len(values)) < len(self.positive)

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

    def shuffled(self, rng: np.random.Generator) -> Poles:
        """The poles as if they did not differ: each pole's mean is subtracted, and all rows are distributed at random.

        If the means were not subtracted, a large difference between the poles would be the largest part of the spread
        over rows, and the null would point along it. Pairs are separated for the same reason: they differ mainly in
        how strongly the trait shows.
        """
        n = len(self.positive)
        order = rng.permutation(n + len(self.negative))
        return Poles(self._dealt(self.positive, order[:n]), self._dealt(self.negative, order[n:]))

    def _dealt(self, side: Activations, rows: np.ndarray) -> Activations:
        """``side`` with the centred values (and the lengths) of other ``rows`` of both poles."""
        poles = (self.positive.values, self.negative.values)
        values = np.concatenate([values - values.mean(axis=0) for values in poles])[rows]
        table = side.table
        if all("n_tokens" in pole.table for pole in (self.positive, self.negative)):
            lengths = np.concatenate([pole.table["n_tokens"] for pole in (self.positive, self.negative)])
            table = table.assign(n_tokens=lengths[rows])
        return Activations(values, table, side.layers, side.source)

    def _count(self, column: str) -> int:
        return min(len(self._names(side, column)) for side in (self.positive, self.negative))

    @staticmethod
    def _names(side: Activations, column: str) -> set[Any]:
        return {str(name) for name in side.table[column]} if column in side.table else set()
