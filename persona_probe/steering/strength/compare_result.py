"""The result of a comparison of interventions, and of random directions, at equal KL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

UNSTEERED, RANDOM = "unsteered", "random"
_SHOWN = ("name", "strength", "kl", "em_rate", "em_low", "em_high", "n", "coherent", "draws", "note")


@dataclass(frozen=True, eq=False)
class BudgetComparison(Result):
    """Interventions at the strength that costs the same.

    Attributes:
        table: one row per intervention, after ``unsteered`` and before ``random`` (all draws together): ``name``,
            ``strength`` (NaN if none meets the budget, and then nothing else is measured), ``kl``, the EM rate and
            coherence with their 95 % intervals as in `persona_probe.steering.dose_response`, ``change`` of the EM rate
            from the unsteered answers with ``change_low`` and ``change_high``, ``draws`` and ``note``.
        settings: model, budget, statistic, sign, definition of the EM rate, judge, seed.
    """

    table: pd.DataFrame
    settings: Mapping[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """A copy of ``table``, with the budget and the definition of the EM rate."""
        settings = self.settings
        return self.table.assign(budget=settings["budget"], definition=settings["definition"])

    def plot(self) -> go.Figure:
        """EM rate and coherence of each intervention, compared with random directions at the same KL."""
        from persona_probe.figures.steered_rates import at_budget

        return at_budget(self.table, budget=self._budget())

    def headline(self) -> str:
        """The intervention that changes the EM rate most, and what random directions do."""
        rows = self.table[~self.table["name"].isin([UNSTEERED, RANDOM])]
        measured = rows.dropna(subset=["change"]) if "change" in rows else rows.iloc[:0]
        line = f"{len(rows)} interventions at {self._budget()}"
        if measured.empty:
            return f"{line}: none meets it"
        best = measured.iloc[int(measured["change"].abs().to_numpy().argmax())]
        line += (
            f": {best['name']} changes the EM rate most, by {100 * best['change']:+.1f} points "
            f"[{100 * best['change_low']:+.1f}, {100 * best['change_high']:+.1f}] (n = {best['n']:.0f})"
        )
        null = self.table[self.table["name"] == RANDOM]
        if null.empty:
            return f"{line}; no random directions were measured"
        one = null.iloc[0]
        return (
            f"{line}; {one['draws']:.0f} random directions by {100 * one['change']:+.1f} "
            f"[{100 * one['change_low']:+.1f}, {100 * one['change_high']:+.1f}]"
        )

    def shown(self) -> pd.DataFrame:
        """Rates, coherence and cost."""
        return self.table[[name for name in _SHOWN if name in self.table]]

    def _budget(self) -> str:
        return f"{self.settings['statistic']} KL of {self.settings['budget']:g} nats"
