"""Which answers are fluent, by three bounds that need no judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rates import check_columns, share
from persona_probe.behaviour.em_rates_result import SETTINGS
from persona_probe.errors import PersonaProbeError
from persona_probe.figures.text import counted, percent_interval
from persona_probe.result import TableResult
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rates import mean_estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

TIMES_AS_SURPRISING = 3.0
"""How many times as surprising per token as the usual answer an answer may be."""
NATS_MORE = 1.0
"""How much more surprising it may always be, where the usual answer has next to no surprise (greedy answers)."""
LEAST_VARIETY = 0.6
"""The least share of different tokens, as a share of the usual answer's."""
MORE_LOOPS = 0.2
"""How much more of an answer than of the usual one may stand in loops."""
FAULTS = {
    "empty": "empty",
    "looping": "caught in loops",
    "repetitive": "of few different words",
    "unlikely": "unlikely even for the persona",
}
"""What may be wrong with an answer, as the column ``fault`` has it, and in words."""


@dataclass(frozen=True)
class FluencyBounds:
    """What an answer must keep to, to be called fluent.

    Attributes:
        log_prob: the least log-probability per token (nats), by the more favourable of the prompts.
        distinct: the least share of different tokens.
        loops: the greatest share of tokens that stand in loops.
        answers: the number of answers from which the bounds were taken.
    """

    log_prob: float
    distinct: float
    loops: float
    answers: int = 0

    @classmethod
    def of(cls, table: pd.DataFrame) -> FluencyBounds:
        """The bounds relative to the median of measured answers, which are taken to be fluent.

        Medians, since a bound must not move because a few of the unsteered model's answers are bad too; and ratios
        instead of quantiles, since a persona's answers lie outside the range of the model's own: what breaks is far
        from it. How these ratios were chosen is told in ``docs/explanation/fluency.md``.

        Raises:
            PersonaProbeError: if every answer is empty.
        """
        rows = table[table["tokens"] > 0]
        if rows.empty:
            raise PersonaProbeError(
                f"fluency: all {len(table)} reference answers are empty, so there is nothing to compare with; give the "
                "unsteered model's answers to development questions"
            )
        usual = rows[["log_prob", "distinct", "loops"]].median()
        return cls(
            float(min(TIMES_AS_SURPRISING * usual["log_prob"], usual["log_prob"] - NATS_MORE)),
            float(LEAST_VARIETY * usual["distinct"]),
            float(usual["loops"] + MORE_LOOPS),
            len(rows),
        )

    def faults(self, table: pd.DataFrame) -> pd.Series[str]:
        """What is wrong with each measured answer: the first key of `FAULTS` that holds, or an empty text."""
        fault = pd.Series("", index=table.index, dtype=object)
        wrong = {
            "unlikely": table["log_prob"] < self.log_prob,
            "repetitive": table["distinct"] < self.distinct,
            "looping": table["loops"] > self.loops,
            "empty": table["tokens"] == 0,
        }
        for name, rows in wrong.items():
            fault[rows] = name
        return fault

    def __str__(self) -> str:
        """The three bounds."""
        return (
            f"at least {self.log_prob:.2f} nats per token, {self.distinct:.0%} different tokens, and at most "
            f"{self.loops:.0%} of tokens in loops"
        )


@dataclass(frozen=True)
class Fluency(TableResult):
    """The fluency of answers.

    Attributes:
        table: one row per answer: ``id``, ``question``, ``group``, ``seed``, ``prompt``, ``answer``, those of
            ``model``, ``intervention`` and ``questions`` that the answers have, ``tokens``, ``log_prob_plain`` and
            ``log_prob_persona`` (nats per token, under *before* as it was asked, and under the persona's system prompt;
            the second only if one was given), ``log_prob`` (the higher one), ``distinct`` (the share of different
            tokens), ``loops`` (the share of tokens in loops), ``ends_in_loop``, ``fault`` (a key of `FAULTS`, or empty)
            and ``fluent``. An empty answer has NaN in place of numbers, and is not fluent.
        bounds: what a fluent answer keeps to.
    """

    table: pd.DataFrame
    bounds: FluencyBounds

    @property
    def fluent(self) -> Estimate:
        """The share of answers within all bounds, with a 95 % interval over questions and seeds."""
        return self._share(self.table, self.table["fluent"])

    def summary(self, by: str | Sequence[str] | None = None) -> pd.DataFrame:
        """One row per group and measure, with intervals over questions and seeds.

        Args:
            by: columns of the table by which to group; default those of ``model``, ``intervention`` and ``questions``
                that it has.

        Returns:
            The columns of ``by``, then ``measure``, ``value``, ``low``, ``high``, ``n``, ``method``, ``level``. The
            measures are ``fluent``, each fault and ``ends_in_loop`` (shares of all answers), and ``log_prob``,
            ``distinct`` and ``loops`` (means over answers that are not empty).

        Raises:
            PersonaProbeError: if the table has no such column.
        """
        columns = self._by(by)
        check_columns(self.table, columns)
        parts = self.table.groupby(columns, sort=False, dropna=False) if columns else [((), self.table)]
        rows = []
        for values, part in parts:
            labels = dict(zip(columns, values, strict=True))
            for measure, estimate in self._measures(part).items():
                rows.append({**labels, "measure": measure, **estimate.as_dict()})
        return pd.DataFrame(rows)

    def plot(self, by: str | Sequence[str] | None = None) -> go.Figure:
        """The share of fluent answers of each group, and of answers with each fault.

        Args:
            by: columns of the table by which to group, as in `summary`.
        """
        from persona_probe.figures.fluency import fluency

        return fluency(self.summary(by), FAULTS)

    def headline(self) -> str:
        """The share of fluent answers, what is wrong with the others, and the bounds."""
        fluent, rows = self.fluent, self.table
        counts = rows["fault"].value_counts()
        wrong = ", ".join(f"{counts[name]} {words}" for name, words in FAULTS.items() if name in counts)
        asked = f" to {counted(rows['question'].nunique())} questions" if rows["question"].notna().any() else ""
        return (
            f"{percent_interval(fluent.value, fluent.low, fluent.high)} of {counted(len(rows))} answers{asked} are "
            f"fluent{f'; the others are {wrong}' if wrong else ''}. Bounds: {self.bounds}"
        )

    def shown(self) -> pd.DataFrame:
        """The measures of each answer, and its text."""
        names = (*SETTINGS, "question", "answer", "log_prob", "distinct", "loops", "fault")
        return self.table[[name for name in names if name in self.table]]

    def _by(self, by: str | Sequence[str] | None) -> list[str]:
        if by is None:
            return [name for name in SETTINGS if name in self.table]
        return [by] if isinstance(by, str) else list(by)

    def _measures(self, rows: pd.DataFrame) -> dict[str, Estimate]:
        shares = {"fluent": rows["fluent"], **{name: rows["fault"] == name for name in FAULTS}}
        shares["ends_in_loop"] = rows["ends_in_loop"]
        said = rows[rows["tokens"] > 0]
        questions, seeds = self._units(said, "question"), self._units(said, "seed")
        means = {
            name: Estimate.missing("every answer is empty")
            if said.empty
            else mean_estimate(said[name].to_numpy(dtype=float), questions=questions, seeds=seeds)
            for name in ("log_prob", "distinct", "loops")
        }
        return {**{name: self._share(rows, chosen) for name, chosen in shares.items()}, **means}

    @staticmethod
    def _share(rows: pd.DataFrame, chosen: pd.Series[bool]) -> Estimate:
        return share(rows, chosen.astype(bool), pd.Series(True, index=rows.index))

    @staticmethod
    def _units(rows: pd.DataFrame, column: str) -> np.ndarray | None:
        return rows[column].to_numpy() if rows[column].notna().all() else None
