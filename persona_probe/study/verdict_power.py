"""What the design of an evaluation can see, from its questions, its answers and how alike answers are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rates import DEFINITIONS, em_rate
from persona_probe.figures.text import percent
from persona_probe.statistics.rate_power import clustering, smallest_visible_rate
from persona_probe.statistics.rates import LEAST_ICC

POWER = 0.8
_LARGER = ((1, 1), (1, 4), (2, 1), (4, 1))
"""The designs of the table: so many times the questions, so many times the answers to each."""
_MOST_QUESTIONS = 500
"""Of a larger design; more take long to simulate."""


@dataclass(frozen=True)
class DesignPower:
    """The smallest rate after that can be distinguished from the rate before, in this design and in larger ones.

    Attributes:
        table: one row per design: ``questions``, ``answers`` to each (the median), and ``rate``, the smallest rate that
            is distinguishable with 80 % power (NaN: none).
        before: the rate before that is assumed.
        correlation: of answers to one question (clustering), that is assumed.
        measured: the correlation that was measured; NaN if it could not be.
    """

    table: pd.DataFrame
    before: float
    correlation: float
    measured: float

    @property
    def rate(self) -> float:
        """The smallest rate in this design."""
        return float(self.table["rate"].iloc[0])

    def sentence(self) -> str:
        """What this design cannot see."""
        first = self.table.iloc[0]
        design = f"{int(first['questions'])} questions x {first['answers']:g} answers"
        if math.isnan(self.rate):
            return f"{design} can show no change at all: give more questions"
        return (
            f"{design} cannot see a rate below {percent(self.rate)} with 80 % power, where before has "
            f"{percent(self.before)} ({self.how_alike()})"
        )

    def how_alike(self) -> str:
        """How alike answers to one question were assumed to be."""
        if math.isnan(self.measured):
            return f"clustering {self.correlation:.2f}, assumed"
        more = "" if self.correlation == self.measured else f", {self.correlation:.2f} assumed at least"
        return f"clustering {self.measured:.2f}, measured{more}"


def design_power(before: pd.DataFrame | None, after: pd.DataFrame, definition: str, *, judged: bool) -> DesignPower:
    """The power of an evaluation with these questions and answers.

    Args:
        before: the answers of the model before; None: as many as those of after, with a rate of 0.
        after: the answers of the model after.
        definition: of the rate; only answers that qualify count.
        judged: whether answers have scores; else all count, and the rate before is taken to be 0.
    """
    sides = [after if before is None else before, after]
    counts = [_per_question(side, definition, judged) for side in sides]
    shared = [name for name in counts[1].index if name in counts[0].index]
    shared = shared or list(counts[1].index)
    sizes = [side.reindex(shared).fillna(side.median() if len(side) else 1).astype(int).to_numpy() for side in counts]
    measured = max((_alike(side, definition) for side in sides if judged), default=math.nan, key=_known)
    correlation = LEAST_ICC if math.isnan(measured) else max(measured, LEAST_ICC)
    rate = 0.0
    if judged and before is not None and not (estimate := em_rate(before, definition)).is_missing:
        rate = estimate.value
    rows: list[dict[str, Any]] = []
    for questions, answers in _LARGER if shared else ():
        if (questions, answers) != (1, 1) and questions * len(shared) > _MOST_QUESTIONS:
            continue
        larger = [np.tile(size * answers, questions) for size in sizes]
        rows.append(
            {
                "questions": len(shared) * questions,
                "answers": float(np.median(larger[1])),
                "rate": smallest_visible_rate(rate, *larger, correlation=correlation, power=POWER),
            }
        )
    nothing = [{"questions": 0, "answers": 0.0, "rate": math.nan}]
    return DesignPower(pd.DataFrame(rows or nothing), rate, correlation, measured)


def _known(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _per_question(table: pd.DataFrame, definition: str, judged: bool) -> pd.Series[int]:
    counts = DEFINITIONS[definition].denominator(table) if judged else table["answer"].notna()
    return table[counts].groupby("question", sort=False).size()


def _alike(table: pd.DataFrame, definition: str) -> float:
    chosen = DEFINITIONS[definition]
    rows = table[chosen.denominator(table)]
    return clustering(chosen.numerator(rows).to_numpy(bool), rows["question"].to_numpy()) if len(rows) else math.nan
