"""EM rates by every definition, of one table of judged answers or of each of its groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.result import TableResult
from persona_probe.statistics.estimate import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

SETTINGS = ("model", "questions")
"""Columns that say which answers a rate is of; any other column of ``by`` is a unit that the figure lists."""


@dataclass(frozen=True)
class EmRates(TableResult):
    """Every definition's EM rate, by group.

    Attributes:
        table: one row a group and definition: the columns of ``by``, then ``definition``, ``value``, ``low``, ``high``
            (95 % interval), ``n`` (answers that qualify), ``method`` (how the interval was made), ``level``,
            ``refusals`` and ``failures`` (answers of the group that the judge took for refusals, or could not score).
        by: the columns that name a group; none where the rates are of the whole table.
    """

    table: pd.DataFrame
    by: tuple[str, ...] = ()

    def plot(self, definition: str | None = None) -> go.Figure:
        """Rates by model and question set, or by question (or any other column of ``by``), with n and intervals.

        Args:
            definition: which EM rate; default ``betley``, or all where there is a single group.
        """
        from persona_probe.figures.em_by_question import em_by_question
        from persona_probe.figures.em_rates import em_rates

        unit = next((name for name in self.by if name not in SETTINGS), None)
        if unit is not None:
            return em_by_question(self.table, definition=definition or "betley", unit=unit)
        several = len(self.table) > self.table["definition"].nunique()
        rows = self.table.assign(**{name: "" for name in SETTINGS if name not in self.table})
        return em_rates(rows, definition=definition or ("betley" if several else None))

    def headline(self) -> str:
        """Betley's rate of each group (of the first four), with interval, n, refusals and failures."""
        rows = self.table[self.table["definition"] == "betley"].to_dict("records")
        said = [self._said({str(key): value for key, value in row.items()}) for row in rows[:4]]
        more = f"; and {len(rows) - 4} more groups" if len(rows) > 4 else ""
        return f"EM rate (betley): {'; '.join(said)}{more}"

    def _said(self, row: dict[str, object]) -> str:
        # repr, so that what is not printable in a name from a file cannot steer a terminal.
        group = ", ".join(repr(row[name]) for name in self.by)
        number = {key: _number(row[key]) for key in ("value", "low", "high")}
        estimate = Estimate(**number, n=int(str(row["n"])), method=str(row["method"]))
        counts = f"{row['refusals']} refusals, {row['failures']} failures"
        return f"{group}{': ' if group else ''}{estimate}, {counts}"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
