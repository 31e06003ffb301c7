"""EM rates under conditions, compared with the plain question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.figures.text import is_number, percent_interval, signed
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class ConditionRates(TableResult):
    """EM rates of models by condition.

    Attributes:
        table: one row per ``model`` and ``condition``: the EM rate ``value`` with its 95 % interval and ``n``, its
            ``change`` from the baseline with ``change_low`` to ``change_high`` (paired over questions), and the share
            of ``coherent`` answers.
        definition: of the rate.
        baseline: the condition with which the others are compared.
    """

    table: pd.DataFrame
    definition: str
    baseline: str

    def headline(self) -> str:
        """Each model's rate when asked plainly, and the conditions under which it is significantly different."""
        lines = []
        for model, rows in self.table.groupby("model", sort=False):
            plain = rows[rows["condition"] == self.baseline]
            rate = "no rate"
            if len(plain) and is_number(plain["value"].iloc[0]):
                rate = percent_interval(*plain[["value", "low", "high"]].iloc[0])
            moved = rows[(rows["change_low"] > 0) | (rows["change_high"] < 0)]
            named = [
                f"{row['condition']} {signed(100 * row['change'], 0)} points "
                f"[{100 * row['change_low']:.0f}, {100 * row['change_high']:.0f}]"
                for row in moved.to_dict("records")
            ]
            compared = int(rows["change"].notna().sum())
            different = "; ".join(named) or "none"
            lines.append(
                f"{model!r}: {rate} {self.baseline} ({self.definition}); significantly different (of {compared}, each "
                f"tested alone): {different}"
            )
        return ". ".join(lines)

    def plot(self) -> go.Figure:
        """A figure of the rates by model and condition."""
        from persona_probe.figures.forest import ForestRow, forest

        groups = [
            [
                ForestRow(str(model), f"{model} · {row['condition']}", row["value"], row["low"], row["high"], row["n"])
                for row in rows.to_dict("records")
                if is_number(row["value"])
            ]
            for model, rows in self.table.groupby("model", sort=False)
        ]
        return forest(
            groups, title=f"EM rate by condition ({self.definition})", axis_title="EM rate (share of answers)"
        )
