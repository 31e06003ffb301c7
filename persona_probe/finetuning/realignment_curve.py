"""How much the model comes back with n benign examples."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class RealignmentCurve(TableResult):
    """The misaligned model, fine-tuned on n benign examples, at the same number of steps for every n above 0.

    Attributes:
        table: one row an n: ``n``, the EM rate ``value`` with its 95 % interval ``low`` to ``high``, ``rows`` (answers
            that count), ``coherent`` (share of answers), ``projection_sd`` (shift of the projection on the persona
            direction from the model before, in SD of its own answers).
        steps: of fine-tuning, for every n above 0.
        definition: of the EM rate.
    """

    table: pd.DataFrame
    steps: int
    definition: str

    def plot(self) -> go.Figure:
        """EM rate and projection by the number of benign examples."""
        from persona_probe.figures.realignment import realignment

        return realignment(self.table)

    def headline(self) -> str:
        """The EM rate at every n; where none could be had (no judge), the projection."""
        rows = self.table.sort_values("n").to_dict("records")
        if self.table["value"].notna().any():
            what, told = f"EM rate ({self.definition}, 95 % interval)", _rate
        else:
            what, told = "projection on the persona direction (SD from the model before; no EM rate)", _projection
        course = " -> ".join(f"{row['n']}: {told(row)}" for row in rows)
        return f"{what} by number of benign examples, {self.steps} steps each: {course}"


def _rate(row: Mapping[Hashable, Any]) -> str:
    if math.isnan(row["value"]):
        return "no rate"
    ends = "no interval" if math.isnan(row["low"]) else f"{row['low']:.1%}, {row['high']:.1%}"
    return f"{row['value']:.1%} [{ends}] (n = {row['rows']:.0f})"


def _projection(row: Mapping[Hashable, Any]) -> str:
    value = row["projection_sd"]
    return "not measured" if math.isnan(value) else f"{value:+.2f}"
