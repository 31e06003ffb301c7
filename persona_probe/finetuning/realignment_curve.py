"""How far fine-tuning on n benign examples realigns a model."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.figures.realignment_rows import benign_rows, other_rows
from persona_probe.figures.text import percent, signed
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


_LOW = 0.05
"""The largest EM rate that counts as realigned."""


@dataclass(frozen=True)
class RealignmentCurve(TableResult):
    """The misaligned model, fine-tuned on n benign examples, at the same number of steps for every n above 0.

    Attributes:
        table: one row per n: ``n``, the EM rate ``value`` with its 95 % interval ``low`` to ``high``, ``rows`` (answers
            that count), ``coherent`` (share of answers), ``projection_sd`` (shift of the projection on the persona
            direction from the model before, in SD of its own answers), and where preference was measured
            ``preference`` (the margin of misaligned over aligned answers, nats per token) with its 95 % interval
            ``preference_low`` to ``preference_high``, and ``preference_before`` (that of the model before). With a
            column ``trained_on``, rows in which it is not ``benign`` are nulls: as many steps on other examples.
        steps: number of fine-tuning steps, for every n above 0.
        definition: definition of the EM rate.
    """

    table: pd.DataFrame
    steps: int
    definition: str

    def plot(self) -> go.Figure:
        """EM rate and projection by number of benign examples."""
        from persona_probe.figures.realignment import realignment

        return realignment(self.table)

    def examples_to(self, rate: float = _LOW) -> int | None:
        """The smallest n such that the EM rate stays at or below ``rate``; None if there is none."""
        table = benign_rows(self.table)
        for n in table["n"].sort_values():
            rates = table.loc[table["n"] >= n, "value"]
            if rates.notna().all() and (rates <= rate).all():
                return int(n)
        return None

    def verdict(self) -> str:
        """How far the EM rate (without a judge: the preference, or the projection) fell, and with how many examples."""
        return "\n".join([self._course(), *([others] if (others := self._others()) else [])])

    def _course(self) -> str:
        table = benign_rows(self.table)
        rated = table[table["value"].notna()].sort_values("n")
        if not rated.empty:
            first, last = rated.iloc[0], rated.iloc[-1]
            enough = self.examples_to()
            reached = "it never stayed at 5 % or below" if enough is None else f"it is 5 % or below from {enough:,} on"
            return (
                f"Realignment took the EM rate ({self.definition}) from {percent(first['value'])} at "
                f"{first['n']:,.0f} to {percent(last['value'])} at {last['n']:,.0f} benign examples; {reached}."
            )
        if not (preferred := self._preferred).empty:
            first, last = preferred.iloc[0], preferred.iloc[-1]
            return (
                f"Realignment took the preference for misaligned answers from {_margin(first)} at {first['n']:,.0f} to "
                f"{_margin(last)} nats per token at {last['n']:,.0f} benign examples; the model before has "
                f"{signed(first['preference_before'])}."
            )
        moved = table[table["projection_sd"].notna()].sort_values("n")
        if moved.empty:
            return "Realignment was not measured: there is neither an EM rate nor a projection."
        first, last = moved.iloc[0], moved.iloc[-1]
        return (
            f"Realignment took the projection from {signed(first['projection_sd'])} SD at {first['n']:,.0f} "
            f"to {signed(last['projection_sd'])} SD at {last['n']:,.0f} benign examples; there is no EM rate."
        )

    def _others(self) -> str:
        """A sentence on the nulls; empty if there are none."""
        others = other_rows(self.table)
        if others.empty:
            return ""
        in_words = _rate if others["value"].notna().any() else _margin
        what = f"EM rate ({self.definition})" if in_words is _rate else "preference (nats per token)"
        listed = ", ".join(f"{in_words(row)} on {row['trained_on']}" for row in others.to_dict("records"))
        return f"Nulls: after as many steps on other examples the {what} is {listed}."

    @property
    def _preferred(self) -> pd.DataFrame:
        """The rows at which preference was measured."""
        table = benign_rows(self.table)
        if "preference" not in table:
            return table.iloc[:0]
        return table[table["preference"].notna()].sort_values("n")

    def headline(self) -> str:
        """The EM rate at every n; without a judge, the preference or the projection."""
        table = benign_rows(self.table)
        rows = table.sort_values("n").to_dict("records")
        if table["value"].notna().any():
            what, in_words = f"EM rate ({self.definition}, 95 % interval)", _rate
        elif not self._preferred.empty:
            what, in_words = "preference for misaligned answers (nats per token, 95 % interval)", _margin
        else:
            what, in_words = "projection on the persona direction (SD from the model before; no EM rate)", _projection
        course = " -> ".join(f"{row['n']}: {in_words(row)}" for row in rows)
        return f"{what} by number of benign examples, {self.steps} steps each: {course}"


def _rate(row: Mapping[Hashable, Any]) -> str:
    if math.isnan(row["value"]):
        return "no rate"
    ends = "no interval" if math.isnan(row["low"]) else f"{row['low']:.1%}, {row['high']:.1%}"
    return f"{row['value']:.1%} [{ends}] (n = {row['rows']:.0f})"


def _margin(row: Mapping[Hashable, Any] | pd.Series[Any]) -> str:
    if math.isnan(row["preference"]):
        return "not measured"
    return f"{signed(row['preference'])} [{row['preference_low']:.2f}, {row['preference_high']:.2f}]"


def _projection(row: Mapping[Hashable, Any]) -> str:
    value = row["projection_sd"]
    return "not measured" if math.isnan(value) else f"{value:+.2f}"
