"""The agreement of two judgements of the same answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.result import TableResult
from persona_probe.statistics.estimate import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

WELL, POORLY = 0.6, 0.4
"""Kappas from which agreement is called substantial, and below which it is called poor here (Landis and Koch 1977, "The
measurement of observer agreement for categorical data", have "substantial" from 0.6 and "fair" or less up to 0.4)."""


@dataclass(frozen=True)
class JudgeAgreement(TableResult):
    """How far two judges agree, and on which answers they do not.

    Attributes:
        table: one row per measure: ``measure`` (``kappa``, ``pearson``, ``spearman``, ``bias``), ``of`` (of kappas
            ``misaligned``, ``coherent`` or ``category``, else the score), ``value``, ``low``, ``high`` (95 %, over
            questions), ``n`` (answers), ``method``, ``level``. A bias is the second's mean score minus the first's.
        answers: one row per answer that both judged: what it is, and for each of the two names ``category: NAME``,
            ``aligned: NAME`` and ``coherent: NAME``.
        definition: the EM rate whose lines say what is misaligned and coherent.
        names: what the two are called.
        remarks: what was not compared, in sentences.
        unmatched: how many answers of each are not among those of the other.
    """

    table: pd.DataFrame
    answers: pd.DataFrame
    definition: str
    names: tuple[str, str]
    remarks: tuple[str, ...] = ()
    unmatched: tuple[int, int] = (0, 0)

    def estimate(self, measure: str, of: str) -> Estimate:
        """One row of the table.

        Raises:
            PersonaProbeError: if there is no such row, with a list of those that there are.
        """
        check_types(measure=(measure, str), of=(of, str))
        rows = self.table[(self.table["measure"] == measure) & (self.table["of"] == of)]
        if rows.empty:
            known = ", ".join(f"{row['measure']} of {row['of']}" for row in self.table.to_dict("records"))
            raise PersonaProbeError(f"there is no {measure!r} of {of!r}; choose one of {known}")
        row = rows.iloc[0]
        number = {name: float(row[name]) for name in ("value", "low", "high")}
        return Estimate(**number, n=int(row["n"]), method=str(row["method"]), level=float(row["level"]))

    @property
    def confusion(self) -> pd.DataFrame:
        """How many answers are of each category by the first (rows) and by the second (columns)."""
        from persona_probe.behaviour.em_rates import CATEGORIES

        first, second = (
            pd.Series(pd.Categorical(self.answers[f"category: {name}"], CATEGORIES)) for name in self.names
        )
        counts = pd.crosstab(first, second, dropna=False, rownames=[self.names[0]], colnames=[self.names[1]])
        used = [name for name in CATEGORIES if counts.loc[name].sum() + counts[name].sum()]
        table: pd.DataFrame = counts.loc[used, used]
        return table

    def disagreements(self, n: int | None = 10) -> pd.DataFrame:
        """The answers on which the two differ most, to be read: most different first.

        The difference is the larger of that of the two scores, in points. Answers of which only one gave a score have
        no difference, and come last.

        Args:
            n: how many at most; None: all that differ.

        Raises:
            PersonaProbeError: if ``n`` is below 1.
        """
        check_types(n=(n, WHOLE, None))
        if n is not None and n < 1:
            raise PersonaProbeError(f"disagreements: n is {n}; give at least 1, or None for all")
        sides = [
            self.answers[[f"{score}: {name}" for score in ("aligned", "coherent")]].set_axis([0, 1], axis=1)
            for name in self.names
        ]
        apart = (sides[0] - sides[1]).abs().max(axis=1, skipna=False)
        kinds = [self.answers[f"category: {name}"] for name in self.names]
        rows = self.answers.assign(difference=apart, _other=kinds[0] != kinds[1])
        rows = rows[(apart > 0) | rows["_other"]]
        rows = rows.sort_values(["difference", "_other"], ascending=False, kind="stable", na_position="last")
        return rows.drop(columns="_other").head(len(rows) if n is None else n).reset_index(drop=True)

    def plot(self) -> go.Figure:
        """A figure of the categories that the two gave the same answers."""
        from persona_probe.figures.judge_agreement import judge_agreement

        return judge_agreement(self.confusion, definition=self.definition)

    def shown(self) -> pd.DataFrame:
        """The measures, without how their intervals were made."""
        return self.table.drop(columns=["method", "level"])

    def headline(self) -> str:
        """Kappa of the misaligned calls, the bias of the scores, and what was not compared."""
        first, second = self.names
        line = f"{first} and {second} on {len(self.answers):,} answers: kappa of 'misaligned' ({self.definition}) "
        line += str(self.estimate("kappa", "misaligned"))
        bias = self.estimate("bias", "aligned")
        if not bias.is_missing:
            ends = "" if math.isnan(bias.low) else f" [{bias.low:+.1f}, {bias.high:+.1f}]"
            line += f"; aligned scores of {second} are {bias.value:+.1f}{ends} points from those of {first}"
        return ". ".join([line, *self._unscored(), *self.remarks])

    def verdict(self) -> str:
        """A sentence on whether the two agree on what is misaligned, and one on what they make of the rate."""
        first, second = self.names
        kappa = self.estimate("kappa", "misaligned")
        if kappa.is_missing:
            return f"Whether {first} and {second} agree on what is misaligned cannot be said: {kappa.method}."
        value = f"kappa {kappa.value:.2f} [{kappa.low:.2f}, {kappa.high:.2f}], n = {kappa.n:,}"
        if kappa.low >= WELL:
            said = f"agree well on what is misaligned ({value})"
        elif kappa.high < POORLY:
            said = f"agree poorly on what is misaligned ({value}): do not use the one for the other"
        elif kappa.low <= 0.0:
            said = f"may agree no better than by chance on what is misaligned ({value})"
        else:
            said = f"agree better than by chance on what is misaligned ({value}), but how well is not certain"
        calls = {name: self.answers[f"category: {name}"] for name in self.names}
        both = ~calls[first].isin(("refusal", "failed")) & ~calls[second].isin(("refusal", "failed"))
        counts = [int((calls[name][both] == "misaligned").sum()) for name in self.names]
        return (
            f"{first} and {second} {said}. Of {int(both.sum()):,} answers that both scored, {counts[0]:,} are "
            f"misaligned by {first} and {counts[1]:,} by {second}."
        )

    def _unscored(self) -> list[str]:
        """How many answers either could not score, in words; they are in the categories, not in the other measures."""
        words = []
        for name in self.names:
            kinds = self.answers[f"category: {name}"]
            counts = {kind: int((kinds == kind).sum()) for kind in ("refusal", "failed")}
            if sum(counts.values()):
                words.append(f"{name}: {counts['refusal']:,} refusals and {counts['failed']:,} failures, not in kappa")
        return words
