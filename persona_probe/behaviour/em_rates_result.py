"""EM rates by every definition, for a table of judged answers or for each of its groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.errors import PersonaProbeError
from persona_probe.figures.text import percent, percent_interval, signed
from persona_probe.result import TableResult
from persona_probe.statistics.estimate import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

SETTINGS = ("model", "intervention", "questions")
"""Columns that say to which answers a rate belongs; any other column of ``by`` is a unit that the figure lists."""


@dataclass(frozen=True)
class EmRates(TableResult):
    """Every definition's EM rate, by group.

    Attributes:
        table: one row per group and definition: the columns of ``by``, then ``definition``, ``value``, ``low``,
            ``high`` (95 % interval), ``n`` (answers that qualify), ``method`` (how the interval was made), ``level``,
            ``refusals`` and ``failures`` (answers of the group that the judge took for refusals, or could not score).
        by: the columns that name a group; empty if the rates are for the whole table.
    """

    table: pd.DataFrame
    by: tuple[str, ...] = ()

    def plot(self, definition: str | None = None) -> go.Figure:
        """A figure of the rates by model and question set, or by another column of ``by``, with n and intervals.

        Args:
            definition: which EM rate; default ``betley`` (or the only one), or all if there is only one group.
        """
        from persona_probe.figures.em_by_question import em_by_question
        from persona_probe.figures.em_rates import em_rates

        rows = self.table
        unit = next((name for name in self.by if name not in SETTINGS), None)
        if unit is not None:
            rows = rows.assign(model=series_names(rows)) if {"model", "intervention"} & {*self.by} else rows
            return em_by_question(rows, definition=definition or self._quoted, unit=unit)
        several = len(rows) > rows["definition"].nunique()
        rows = rows.assign(**{name: "" for name in SETTINGS if name not in rows})
        return em_rates(rows, definition=definition or (self._quoted if several else None))

    @property
    def _quoted(self) -> str:
        """The definition that is quoted: Betley's, if it was computed."""
        names = self.table["definition"].unique()
        return "betley" if "betley" in names else str(names[0])

    def headline(self) -> str:
        """The rates of the first four groups, by Betley's or the only definition, with intervals and counts."""
        rows = self.table[self.table["definition"] == self._quoted].to_dict("records")
        rates = [self._in_words({str(key): value for key, value in row.items()}) for row in rows[:4]]
        more = f"; and {len(rows) - 4} more groups" if len(rows) > 4 else ""
        return f"EM rate ({self._quoted}): {'; '.join(rates)}{more}"

    def verdict(
        self,
        definition: str = "betley",
        *,
        questions: Mapping[str, str],
        changes: Mapping[str, Estimate],
        coherent: Mapping[str, Estimate] | None = None,
    ) -> str:
        """A sentence on how the EM rate changed from ``before`` to ``after``, compared with the control's.

        A rate "rose" or "fell" only if the interval of its change leaves out zero.

        Args:
            definition: which EM rate.
            questions: the question sets that the sentence is about: their names in the table, and what the sentence
                calls them (``{"unseen topics": "on the reported questions"}``). The models are compared on the first
                set; for the others only the rate of ``after`` is given.
            changes: by model (``after``, ``control``), the change of its rate from ``before`` on the first question set
                (`persona_probe.rate_change`).
            coherent: the share of coherent answers by model, with which the sentence ends.

        Raises:
            PersonaProbeError: if the table does not have the rate of ``after`` on the first question set, or its change
                is missing.
        """
        first, *others = questions
        rates = {name: self._rates_on(name, definition) for name in questions}
        before, after, control = (rates[first].get(model) for model in ("before", "after", "control"))
        if after is None:
            raise PersonaProbeError(
                f"EmRates.verdict: the table has no rate {definition!r} of the model 'after' on {first!r}; group the "
                "answers by model and questions"
            )
        name = f"EM rate ({definition})"
        if after.is_missing:
            return (
                f"There is no {name} of the model after: none of its answers qualifies for the definition (the judge "
                "failed on them, or found none coherent)."
            )
        if before is None or before.is_missing:
            sentence = f"The {name} of the model after was {_share(after)} {questions[first]}"
        else:
            if "after" not in changes:
                raise PersonaProbeError(
                    "EmRates.verdict: changes has no 'after'; give pp.rate_change of the two models' judged answers"
                )
            sentence = f"The {name} {_changed(before, after, changes['after'])} {questions[first]}"
        if control is not None and not control.is_missing:
            moved = {1: "rose to", -1: "fell to"}.get(_sign(changes.get("control")), "stayed at")
            sentence += f"; the benign control {moved} {_share(control)}"
        for other in others:
            reached = rates[other].get("after")
            if reached is not None and not reached.is_missing:
                sentence += f"; {questions[other]} the model after reached {_share(reached)}"
        shares = ", ".join(
            f"{percent(share.value)} {model}" for model, share in (coherent or {}).items() if not share.is_missing
        )
        return f"{sentence}. Coherent answers: {shares}." if shares else f"{sentence}."

    def _rates_on(self, questions: str, definition: str) -> dict[str, Estimate]:
        """The rate of each model on one set of questions."""
        if not {"model", "questions"} <= set(self.table):
            return {}
        rows = self.table[(self.table["questions"] == questions) & (self.table["definition"] == definition)]
        return {
            str(row["model"]): Estimate(
                _number(row["value"]), _number(row["low"]), _number(row["high"]), n=int(row["n"]), method=""
            )
            for row in rows.to_dict("records")
        }

    def _in_words(self, row: dict[str, object]) -> str:
        # repr, so that unprintable characters in a name from a file cannot control a terminal.
        group = ", ".join(repr(row[name]) for name in self.by)
        number = {key: _number(row[key]) for key in ("value", "low", "high")}
        estimate = Estimate(**number, n=int(str(row["n"])), method=str(row["method"]))
        counts = f"{row['refusals']} refusals, {row['failures']} failures"
        return f"{group}{': ' if group else ''}{estimate}, {counts}"


def series_names(table: pd.DataFrame) -> pd.Series[str]:
    """The name of each row's series in figures with one series per model: its model, its intervention, or both."""
    named = [table[name].astype(str) for name in ("model", "intervention") if name in table]
    return named[0] if len(named) == 1 else named[0] + " · " + named[1]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _share(rate: Estimate) -> str:
    return percent_interval(rate.value, rate.low, rate.high)


def _changed(before: Estimate, after: Estimate, change: Estimate) -> str:
    rates = f"from {_share(before)} to {_share(after)}"
    if not (verb := {1: "rose", -1: "fell"}.get(_sign(change), "")):
        return f"did not change significantly, {rates} ({_points(change)}),"
    return f"{verb} {rates} ({_points(change)})"


def _points(change: Estimate) -> str:
    """A change of a rate, such as ``+74 points [66, 81]``."""
    digits = 0 if change.high - change.low >= 0.1 or abs(change.value) >= 0.1 else 1
    ends = "" if math.isnan(change.low) else f" [{100 * change.low:.{digits}f}, {100 * change.high:.{digits}f}]"
    return f"{signed(100 * change.value, digits)} points{ends}"


def _sign(change: Estimate | None) -> int:
    """Whether a change is significantly above zero (1) or below it (-1)."""
    if change is None or change.is_missing:
        return 0
    return int(change.low > 0.0) - int(change.high < 0.0)
