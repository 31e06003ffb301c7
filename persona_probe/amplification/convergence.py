"""Whether different narrow fine-tunes move a model along one direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from persona_probe.activations.activations import Activations
from persona_probe.directions.cosines import CosineTable, cosine_table
from persona_probe.directions.direction import Direction
from persona_probe.errors import WHOLE, PersonaProbeError, check_types


@dataclass(frozen=True)
class Convergence(CosineTable):
    """Cosines between directions of different organisms.

    Attributes:
        table: the table of `CosineTable`, with a column ``ceiling``: the expected cosine of two noisy estimates of
            *one* direction; NaN if a card does not say how noisy its direction is.
    """

    def headline(self) -> str:
        """The range of the cosines, how many exceed those of random directions, and what noise allows."""
        ceiling = self.table["ceiling"].dropna()
        if ceiling.empty:
            return f"{super().headline()}; how much noise allows is not known"
        return f"{super().headline()}; noise allows {ceiling.min():.2f} to {ceiling.max():.2f} for one direction"


def measure_convergence(
    directions: Mapping[str, Direction], reference: Activations, *, n_random: int = 1000, seed: int = 0
) -> Convergence:
    """The cosine of each pair of directions at each layer, with those of random directions and what noise allows.

    After Soligo et al. 2025 ("Convergent linear representations of emergent misalignment", arXiv:2506.11618), who find
    one direction behind different fine-tunes; `cross_ablate` tests whether it also acts as one.

    Args:
        directions: the directions by organism (or recipe); vectors ``(layer, d_model)``, at the same layers.
        reference: activations whose covariance the random directions share, usually the before model's own answers.
        n_random: the number of random directions.
        seed: the seed of the random directions.

    Returns:
        `Convergence`. Its ``ceiling`` is the geometric mean of both reliabilities (Spearman 1904's attenuation;
        Spearman-Brown from ``card["checks"]["split_half_cosine"]``, one number per layer); NaN if a card has none.

    Raises:
        PersonaProbeError: as in `cosine_table`, and if a card has another number of split-half cosines than layers.
    """
    check_types(
        directions=(directions, {str: Direction}),
        reference=(reference, Activations),
        n_random=(n_random, WHOLE),
        seed=(seed, WHOLE),
    )
    table = cosine_table(directions, reference, n_random=n_random, seed=seed).table
    reliable = {
        (name, layer): value
        for name, direction in directions.items()
        for layer, value in zip(direction.layers, _reliability(name, direction), strict=True)
    }
    first, second = (
        np.array([reliable[key] for key in zip(table[side], table["layer"], strict=True)])
        for side in ("first", "second")
    )
    return Convergence(table.assign(ceiling=np.sqrt(first * second)))


def _reliability(name: str, direction: Direction) -> np.ndarray:
    """``(layer,)`` the expected cosine with a direction from as many other dialogues; NaN if unknown."""
    halves = (direction.card.get("checks") or {}).get("split_half_cosine")
    if halves is None:
        return np.full(len(direction.layers), np.nan)
    cosines = np.asarray(halves, dtype=np.float64)
    if cosines.shape != (len(direction.layers),):
        raise PersonaProbeError(
            f"measure_convergence: the card of {name!r} has split_half_cosine of shape {cosines.shape} for "
            f"{len(direction.layers)} layers; it must hold one number per layer"
        )
    agreed = np.clip(cosines, 0.0, 1.0)
    return np.asarray(2 * agreed / (1 + agreed))
