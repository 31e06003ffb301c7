"""The change of an EM rate between two tables of answers to the same questions."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rates import DEFINITIONS, em_rate
from persona_probe.statistics.estimate import Estimate


def rate_change(before: pd.DataFrame, after: pd.DataFrame, definition: str) -> Estimate:
    """EM rate of ``after`` minus that of ``before``, paired over questions.

    The interval squares and adds the two rates' own intervals, less what they share (Newcombe 1998, "Improved
    confidence intervals for the difference between binomial proportions based on paired data", method 10; for any two
    intervals Zou and Donner 2008, "Construction of confidence limits about effect measures"), with the correlation
    over questions of the rates' linearised errors. So it stays honest where a rate is 0 or 1: two rates of 0 differ by
    0, with an interval.

    Args:
        before: a judged table with a ``question`` in every row.
        after: another, of the same questions; may have several answers to each.
        definition: of the EM rate.

    Returns:
        The change; ``n`` is the number of answers of ``after`` that count. Missing if either rate is.
    """
    first, second = em_rate(before, definition), em_rate(after, definition)
    if first.is_missing or second.is_missing:
        return Estimate.missing("no answer qualifies")
    change = second.value - first.value
    shared = _correlation(_errors(before, definition), _errors(after, definition))

    def reach(ours: float, theirs: float) -> float:
        return math.sqrt(max(ours**2 + theirs**2 - 2 * shared * ours * theirs, 0.0))

    down = reach(second.value - second.low, first.high - first.value)
    up = reach(second.high - second.value, first.value - first.low)
    method = f"paired square-and-add, correlation {shared:.2f} over questions; {second.method}"
    return Estimate(change, max(change - down, -1.0), min(change + up, 1.0), second.n, method)


def _errors(table: pd.DataFrame, definition: str) -> pd.Series[float]:
    """Each question's share of the rate's error: they sum to zero."""
    counted = DEFINITIONS[definition].denominator(table)
    hits = DEFINITIONS[definition].numerator(table)
    residual = (hits.astype(float) - float(hits[counted].mean())) * counted / int(counted.sum())
    sums: pd.Series[float] = residual.groupby(table["question"]).sum()
    return sums


def _correlation(first: pd.Series[float], second: pd.Series[float]) -> float:
    a, b = (side.to_numpy(dtype=float) for side in first.align(second, fill_value=0.0))
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(float(a @ b) / scale, -1.0, 1.0)) if scale > 0 else 0.0
