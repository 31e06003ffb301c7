"""The result of a calibration of strength: one strength per sign, and everything that was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona_probe.errors import PersonaProbeError
from persona_probe.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from persona_probe.steering.interventions.intervention import Intervention


@dataclass(frozen=True, eq=False, repr=False)
class StrengthCalibration(Result):
    """Strengths that meet a budget.

    Attributes:
        table: one row per sign: ``sign``, ``strength`` (with its sign; NaN if the budget is not met), ``dose`` (the
            relative dose: length of the change divided by that of the stream), what it reaches
            (``kl``, in nats, or ``coherent``, a share) with ``low`` and ``high`` (95 %, over questions) and ``n``,
            ``monotone`` (whether the curve is monotone where it was measured) and ``note``.
        tried: one row per strength tried, in order: ``strength``, ``dose`` and the same estimates.
        settings: budget, statistic, model, intervention, number of dialogues, seed.
        intervention_given: the intervention that was calibrated, as it was given.
    """

    table: pd.DataFrame
    tried: pd.DataFrame
    settings: Mapping[str, Any]
    intervention_given: Intervention = field(repr=False)

    @property
    def strengths(self) -> dict[int, float]:
        """The strengths that meet the budget, by sign."""
        met = self.table.dropna(subset=["strength"])
        return {int(sign): float(strength) for sign, strength in zip(met["sign"], met["strength"], strict=True)}

    def strength(self, sign: int = 1) -> float:
        """The strength of one sign.

        Raises:
            PersonaProbeError: if the sign was not asked for, or no strength meets the budget.
        """
        if sign not in self.strengths:
            row = self.table[self.table["sign"] == sign]
            why = "was not calibrated" if row.empty else f"has no strength: {row['note'].iloc[0]}"
            raise PersonaProbeError(f"sign {sign:+d} {why}")
        return self.strengths[sign]

    def intervention(self, sign: int = 1) -> Intervention:
        """The intervention at the strength of one sign, ready for `persona_probe.steer`.

        Raises:
            PersonaProbeError: if the sign was not asked for, or no strength meets the budget.
        """
        return self.intervention_given.with_strength(self.strength(sign))

    def to_frame(self) -> pd.DataFrame:
        """A copy of ``table``, with the budget."""
        return self.table.assign(budget=self.settings["budget"], statistic=self.settings["statistic"])

    def plot(self) -> go.Figure:
        """The cost of each strength that was tried, the budget, and the strengths that meet it."""
        from persona_probe.figures.calibration import calibration

        settings = self.settings
        # A budget of coherence is a share of the unsteered model's coherence.
        budget = float(settings["budget"]) * float(settings.get("unsteered", 1.0))
        return calibration(self.tried, self.table, budget=budget, statistic=str(settings["statistic"]))

    def headline(self) -> str:
        """The strengths, what they reach, and the budget, as in the repr."""
        return repr(self)

    def __repr__(self) -> str:
        """The strengths, what they reach, and the budget."""
        unit = "coherent" if self.settings["statistic"] == "coherent" else "nats"
        column = "coherent" if unit == "coherent" else "kl"
        rows = [
            f"{row['strength']:+.4g} (relative dose {row['dose']:.2g}, {row[column]:.3g} {unit})"
            if np.isfinite(row["strength"])
            else row["note"]
            for row in self.table.to_dict("records")
        ]
        return f"StrengthCalibration({'; '.join(rows)}; budget {self.settings['budget']:g})"
