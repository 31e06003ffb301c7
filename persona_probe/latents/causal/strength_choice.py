"""The strength at which each latent is steered: the best on development questions that leaves answers coherent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.latents.steering import LatentEdit
from persona_probe.steering.asking import coherent_enough, measured


@dataclass(frozen=True)
class Setting:
    """A latent, the factor of its level to which it is clamped (0: ablated), and whether training silences it."""

    latent: int
    factor: float
    level: float
    fell: bool = False

    @property
    def edit(self) -> LatentEdit:
        """The edit of the latent."""
        return LatentEdit([self.latent], "clamp", self.amount) if self.factor else LatentEdit([self.latent])

    @property
    def amount(self) -> float:
        """The activation to which the latent is clamped."""
        return self.factor * self.level

    def as_row(self) -> dict[str, Any]:
        """The setting as columns."""
        edit = self.edit
        return {
            "latent": self.latent,
            "fell": self.fell,
            "kind": edit.kind,
            "amount": self.amount,
            "factor": self.factor,
            "level": self.level,
        }


def choose_strengths(
    grid: Sequence[Setting],
    plain: pd.DataFrame,
    tried: Sequence[pd.DataFrame],
    goal: str,
    min_coherence: float,
    definition: str,
) -> tuple[pd.DataFrame, dict[int, Setting]]:
    """Every strength tried, and each latent's best among those that are coherent enough.

    Args:
        grid: the settings that were tried.
        plain: the judged unsteered answers.
        tried: the judged answers under each setting, to the same questions.
        goal: ``suppress`` or ``induce``.
        min_coherence: the smallest share of coherent answers, as a ratio to the unsteered share.
        definition: which EM rate.

    Returns:
        A table with a row for the unsteered model and one for each setting; and the chosen settings, by latent, without
        latents for which no setting is coherent enough.
    """
    unsteered = measured(plain, definition)
    sign = 1.0 if goal == "induce" else -1.0
    rows, best = [], dict[int, tuple[tuple[float, float, float], Setting]]()
    for setting, table in zip(grid, tried, strict=True):
        rates = measured(table, definition)
        enough = coherent_enough(rates["coherent"], unsteered["coherent"], min_coherence)
        enough = enough and bool(np.isfinite(rates["em_rate"]))
        rows.append({**setting.as_row(), **rates, "enough": enough, "chosen": False})
        merit = (sign * rates["em_rate"], rates["coherent"], -abs(setting.factor))
        if enough and (setting.latent not in best or merit > best[setting.latent][0]):
            best[setting.latent] = (merit, setting)
    chosen = {latent: setting for latent, (_, setting) in best.items()}
    for row, setting in zip(rows, grid, strict=True):
        row["chosen"] = chosen.get(setting.latent) is setting
    trials = pd.DataFrame([{"latent": None, "kind": "none", **unsteered, "enough": True, "chosen": False}, *rows])
    return trials.astype({"latent": "Int64"}), chosen
