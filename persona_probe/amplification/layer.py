"""The changes of one layer from before to after, and what null directions show there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.activations.questions import questions_of
from persona_probe.directions.finders.poles import Poles
from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.effect_sizes import Yardstick
from persona_probe.statistics.nulls import (
    effective_dimensions,
    isotropic_directions,
    matched_random_directions,
    shuffled_label_differences,
)
from persona_probe.statistics.question_exchange import QuestionExchange

# Activations are float32: if the spread is this small compared with the projections, it is their rounding.
ROUNDING = 1e-6
QUANTILE = 0.975


def quantile_of_size(values: Float[np.ndarray, "... draw"]) -> float:
    """The 97.5 % quantile of absolute values; NaN if there are no values."""
    return float(np.quantile(np.abs(values), QUANTILE)) if values.size else math.nan


def unit(vector: Float[np.ndarray, "... d_model"]) -> Float[np.ndarray, "... d_model"]:
    """The vector scaled to length one, in double precision."""
    double = np.asarray(vector, dtype=np.float64)
    return np.asarray(double / np.linalg.norm(double))


def yardstick_along(
    reference: Activations, along: Float[np.ndarray, "... d_model"], name: str, layer: int
) -> Yardstick:
    """One standard deviation over the reference dialogues along a unit vector, in residual-stream units.

    Args:
        reference: the before model's activations on its own answers; the error of the SD is over their questions (over
            dialogues, if there is only one question).
        along: a unit vector.
        name: the name of the direction, for the error.
        layer: the number of the layer.

    Raises:
        PersonaProbeError: if the dialogues do not vary along the vector.
    """
    projections = reference.at(layer).astype(np.float64) @ along
    spread = float(projections.std(ddof=1)) if len(projections) > 1 else 0.0
    if spread <= ROUNDING * float(np.abs(projections).max()):
        raise PersonaProbeError(
            f"amplification: the {len(reference)} reference dialogues do not vary along {name!r} at layer {layer} "
            f"(SD {spread:.3g}), so shifts along it cannot be given in SD; give more varied dialogues"
        )
    asked = questions_of(reference)
    return Yardstick.of(projections, asked if len(set(asked)) > 1 else None)


@dataclass(frozen=True)
class Shift:
    """The changes by one fine-tune at one layer.

    Attributes:
        deltas: ``(dialogue, d_model)`` tuned minus before, in residual-stream units.
        random: ``(dialogue, draw)`` projections of ``deltas`` on random directions, same units.
    """

    deltas: Float[np.ndarray, "dialogue d_model"]
    random: Float[np.ndarray, "dialogue draw"]

    def explained(self, along: Float[np.ndarray, "... d_model"]) -> tuple[float, float]:
        """The share of the squared norm along a unit vector: of the mean change, and of single dialogues' changes.

        The latter is the mean over dialogues that changed at all. Both are NaN if nothing changed.
        """
        of_mean, of_each = self._shares((self.deltas @ along)[:, None])
        return float(of_mean[0]), float(of_each[0])

    def explained_by_random(self) -> tuple[float, float]:
        """The 97.5 % quantiles of both shares over random directions."""
        of_mean, of_each = self._shares(self.random)
        return float(np.quantile(of_mean, QUANTILE)), float(np.quantile(of_each, QUANTILE))

    def _shares(self, projections: Float[np.ndarray, "dialogue draw"]) -> tuple[np.ndarray, np.ndarray]:
        """``(draw,)`` shares of the squared norm of the mean change, and means of the shares of single dialogues."""
        whole = float(np.square(self.deltas.mean(axis=0)).sum())
        norms = np.square(self.deltas).sum(axis=1)
        moved = norms > 0
        missing = np.full(projections.shape[1], np.nan)
        of_mean = np.square(projections.mean(axis=0)) / whole if whole > 0 else missing
        of_each = (np.square(projections[moved]) / norms[moved, None]).mean(axis=0) if moved.any() else missing
        return of_mean, of_each


class Layer:
    """The reference dialogues at one layer, which give the SD, and random directions."""

    def __init__(self, number: int, dialogues: Activations, n_random: int, seed: int) -> None:
        reference = dialogues.at(number)
        if len(reference) < 2:
            raise PersonaProbeError(
                f"amplification: the reference holds {len(reference)} dialogue, but the standard deviation is over "
                "its dialogues; give the before model's answers to some dozens of development questions"
            )
        if not np.ptp(reference, axis=0).any():
            raise PersonaProbeError(
                f"amplification: all {len(reference)} reference dialogues are the same at layer {number}, so there is "
                "no standard deviation; give different dialogues"
            )
        self.number, self.seed, self.dialogues = number, seed + number, dialogues
        self.reference = reference.astype(np.float64)
        self.dimensions = effective_dimensions(self.reference)
        self.random = matched_random_directions(self.reference, n_random, self.seed)
        self.random_spread = self._spread(self.random)
        self.isotropic = self._in_sd(isotropic_directions(n_random, reference.shape[1], self.seed))

    def change(
        self, before: Float[np.ndarray, "dialogue d_model"], tuned: Float[np.ndarray, "dialogue d_model"]
    ) -> Shift:
        """The changes by a fine-tune on the same texts."""
        deltas = tuned.astype(np.float64) - before
        return Shift(deltas, deltas @ self.random.T)

    def yardstick(self, along: Float[np.ndarray, "... d_model"], name: str) -> Yardstick:
        """`yardstick_along` for this layer's reference."""
        return yardstick_along(self.dialogues, along, name, self.number)

    def random_shifts(self, change: Shift) -> Float[np.ndarray, "dialogue draw"]:
        """The change of each dialogue along the random directions, in the SD along each."""
        return np.asarray(change.random / self.random_spread)

    def shuffled(self, positive: Activations, negative: Activations, n: int) -> Float[np.ndarray, "draw d_model"]:
        """Directions from the poles with the labels of whole questions exchanged, each divided by its SD.

        None if the poles have too few questions for a 97.5 % quantile (`QuestionExchange.too_few`).
        """
        values = np.concatenate([pole.at(self.number) for pole in (positive, negative)]).astype(np.float64)
        labels = np.arange(len(values)) < len(positive)
        asked = Poles(positive, negative).codes
        if QuestionExchange.of(labels, asked, apart=True).too_few:
            return np.empty((0, values.shape[1]))
        return self._in_sd(shuffled_label_differences(values, labels, n, self.seed, questions=asked))

    def _in_sd(self, directions: Float[np.ndarray, "draw d_model"]) -> Float[np.ndarray, "some d_model"]:
        """The unit vectors divided by their SD, so that the product of a change with them is in SD.

        Vectors along which the reference does not vary are left out.
        """
        spread = self._spread(directions)
        varies = spread > ROUNDING * np.abs(self.reference @ directions.T).max(axis=0)
        return np.asarray(directions[varies] / spread[varies, None])

    def _spread(self, directions: Float[np.ndarray, "draw d_model"]) -> Float[np.ndarray, "... draw"]:
        return np.asarray((self.reference @ directions.T).std(axis=0, ddof=1))
