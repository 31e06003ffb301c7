"""How far narrow training moved a model along a direction, beside what it would be if nothing were there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.nulls import matched_random_directions, specificity
from persona_probe.statistics.rates import mean_estimate


@dataclass(frozen=True)
class Captures:
    """The same texts read by the model before, after, and after the control fine-tune."""

    before: Activations
    after: Activations
    control: Activations

    def __post_init__(self) -> None:
        """Refuse captures of different texts."""
        for name in ("after", "control"):
            other: Activations = getattr(self, name)
            same = len(other) == len(self.before) and all(
                list(other.table[name]) == list(self.before.table[name])
                for name in ("id", "question", "n_tokens")
                if name in other.table and name in self.before.table
            )
            if not same:
                raise PersonaProbeError(f"amplification: {name} read other dialogues than before; give both the same")


def measure_amplification(
    direction: Direction, captures: Captures, reference: Activations, *, n_random: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Shift of the mean projection from before to after, per layer, with its nulls.

    Args:
        direction: what is projected on.
        captures: the same texts through the three models.
        reference: the before-model's activations on its own answers to development questions; one standard deviation is
            over these dialogues, and random directions are drawn with their covariance.
        n_random: covariance-matched random directions.
        seed: of the random directions.

    Returns:
        Two rows a layer (``model`` = ``after``, ``control``): ``layer``, ``model``, ``shift`` (residual-stream units),
        ``shift_sd``, ``low_sd``, ``high_sd`` (standard deviations), ``random_sd`` (97.5 % quantile of the absolute
        shift along random directions, each in its own SD), and on rows of ``after`` the
        ``specificity = |after - control| / max(|control|, random)``.
    """
    base, moved, control = (direction.project(part) for part in (captures.before, captures.after, captures.control))
    spread = direction.project(reference).std(axis=0, ddof=1)
    questions = captures.before.table["question"].to_numpy()
    rows = []
    for column, layer in enumerate(captures.before.layers):
        sd = float(spread[column])
        random_sd = {
            name: _random_shifts(layer, captures.before, other, reference, n_random, seed)
            for name, other in (("after", captures.after), ("control", captures.control))
        }
        estimates = {
            name: mean_estimate(values[:, column] - base[:, column], questions=questions)
            for name, values in (("after", moved), ("control", control))
        }
        for name, estimate in estimates.items():
            rows.append(
                {
                    "layer": layer,
                    "model": name,
                    "shift": estimate.value,
                    "shift_sd": estimate.value / sd,
                    "low_sd": estimate.low / sd,
                    "high_sd": estimate.high / sd,
                    "random_sd": float(np.quantile(np.abs(random_sd[name]), 0.975)),
                    "specificity": specificity(
                        estimates["after"].value / sd, estimates["control"].value / sd, random_sd["after"]
                    )
                    if name == "after"
                    else np.nan,
                    "n": estimate.n,
                }
            )
    return pd.DataFrame(rows)


def _random_shifts(
    layer: int, before: Activations, after: Activations, reference: Activations, n: int, seed: int
) -> np.ndarray:
    """Shift of the mean along ``n`` covariance-matched random directions, each in its own standard deviation."""
    directions = matched_random_directions(reference.at(layer), n, seed + layer)
    moved = (after.at(layer) - before.at(layer)).mean(axis=0)
    spread = (reference.at(layer) @ directions.T).std(axis=0, ddof=1)
    return np.asarray(directions @ moved / spread)
