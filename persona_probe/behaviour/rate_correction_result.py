"""EM rates as the judge measured them, and corrected for its errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.behaviour.em_rates_result import series_names
from persona_probe.figures.text import percent_interval
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class CorrectedRates(TableResult):
    """The EM rate of each group, as flagged by the judge and corrected by labels.

    Attributes:
        table: one row per group: the columns of ``by``, ``definition``; ``flagged``, ``flagged_low`` and
            ``flagged_high`` (the judge's rate); ``value``, ``low``, ``high`` (the corrected one; 95 % over questions,
            with the uncertainty of the judge's errors), ``n`` (answers that qualify), ``method``, ``level``,
            ``labels`` (how many it rests on), ``refusals`` and ``failures``.
        errors: one row per property of the judge, over all labels: ``of`` (``sensitivity``, ``specificity``,
            ``misaligned among flagged``, ``misaligned among others``), ``value``, ``low``, ``high``, ``n``.
        definition: which EM rate.
        by: the columns that name a group.
        assumed: whether the judge is assumed to err as often on the answers of every group.
        remarks: which labels were not used, in sentences.
    """

    table: pd.DataFrame
    errors: pd.DataFrame
    definition: str
    by: tuple[str, ...] = ()
    assumed: bool = False
    remarks: tuple[str, ...] = ()

    def plot(self) -> go.Figure:
        """A figure of each group's rate, as flagged and corrected."""
        from persona_probe.figures.corrected_rates import corrected_rates

        names = self._names()
        return corrected_rates(self.table.assign(name=names), definition=self.definition)

    def headline(self) -> str:
        """The first four groups, flagged and corrected, and the judge's errors."""
        rates = [
            f"{name}{': ' if name else ''}{self._flagged(row)} flagged, {_corrected(row)} corrected"
            for name, row in list(zip(self._names(), self.table.to_dict("records"), strict=True))[:4]
        ]
        more = f"; and {len(self.table) - 4} more groups" if len(self.table) > 4 else ""
        errors = self.errors.set_index("of")
        judge = ", ".join(
            f"{name} {percent_interval(errors['value'][name], errors['low'][name], errors['high'][name])}"
            for name in ("sensitivity", "specificity")
            if not pd.isna(errors["value"][name])
        )
        line = f"EM rate ({self.definition}): {'; '.join(rates)}{more}"
        return ". ".join([line, *([f"Judge: {judge}"] if judge else []), *self.remarks])

    def verdict(self) -> str:
        """A sentence per group on what is left of its rate, and the assumption that the numbers rest on."""
        sentences: list[str] = []
        unknown: dict[str, list[str]] = {}
        for name, row in zip(self._names(), self.table.to_dict("records"), strict=True):
            of = f" of {name}" if name else ""
            if pd.isna(row["value"]):
                unknown.setdefault(row["method"], []).append(name)
            else:
                zero = row["low"] <= 0.0 < row["flagged_low"]
                rest = ", which may be the judge's false positives alone" if zero else ""
                sentences.append(
                    f"The judge flags {self._flagged(row)} of answers{of}; corrected by {row['labels']} labels the EM "
                    f"rate ({self.definition}) is {_corrected(row)}{rest}."
                )
        for reason, names in unknown.items():
            of = f" of {', '.join(names)}" if any(names) else ""
            sentences.append(f"The EM rate{of} cannot be corrected: {reason}.")
        if self.assumed and len(unknown) < len(self.table):
            sentences.append("Assumed: the judge errs as often on the answers of every model.")
        return " ".join(sentences)

    def _names(self) -> list[str]:
        if not self.by:
            return [""] * len(self.table)
        if {"model", "intervention"} & {*self.by} and {*self.by} <= {"model", "intervention"}:
            return [str(name) for name in series_names(self.table)]
        return [", ".join(str(row[name]) for name in self.by) for row in self.table.to_dict("records")]

    @staticmethod
    def _flagged(row: dict[Any, Any]) -> str:
        value = row["flagged"]
        return "nothing" if pd.isna(value) else percent_interval(value, row["flagged_low"], row["flagged_high"])


def _corrected(row: dict[Any, Any]) -> str:
    missing = math.isnan(row["value"])
    return f"missing ({row['method']})" if missing else percent_interval(row["value"], row["low"], row["high"])
