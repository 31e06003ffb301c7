"""Many data sets of one case, and what became of them."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from benchmarks.coverage.case import Case
from benchmarks.coverage.sections import cases


def judge(section: str, key: str, repetitions: int) -> dict[str, Any]:
    """A row of results: the case's numbers as they stand in the JSON file. Runs in a process of its own."""
    return row(cases(section)[key], repetitions)


def row(case: Case, repetitions: int) -> dict[str, Any]:
    """Draw the data sets of a case and count.

    Returns:
        ``share`` (of intervals that contain the truth, or of data sets in which something was found) with its
        Monte-Carlo standard error; for coverage also the shares of intervals that lie ``below`` and ``above`` the
        truth, the mean ``width`` of those that have ends, the share that are ``unbounded``; the share without an answer
        (``missing``), the seed and the seconds.
    """
    generator = np.random.default_rng(case.seed)
    started = time.process_time()
    drawn = [case.draw(generator) for _ in range(repetitions)]
    seconds = time.process_time() - started
    counts = _coverage(drawn) if case.kind == "coverage" else _found(drawn)
    about = {name: getattr(case, name) for name in ("what", "setting", "kind", "why", "cautious", "seed")}
    return {**about, "repetitions": repetitions, **counts, "seconds": round(seconds, 2)}


def _coverage(drawn: list[Any]) -> dict[str, float | None]:
    given = [ends for ends in drawn if ends is not None and not any(map(math.isnan, ends))]
    if not given:
        return {"share": None, "error": None, "missing": 1.0}
    low, high, truth = np.array(given, dtype=float).T
    width = high - low
    bounded = np.isfinite(width)
    below, above = high < truth, low > truth
    share = float(1 - (below | above).mean())
    return {
        "share": share,
        "error": standard_error(share, len(given)),
        "below": float(below.mean()),
        "above": float(above.mean()),
        "width": float(width[bounded].mean()) if bounded.any() else None,
        "unbounded": float(1 - bounded.mean()),
        "missing": 1 - len(given) / len(drawn),
    }


def _found(drawn: list[Any]) -> dict[str, float]:
    share = float(np.mean([bool(found) for found in drawn]))
    missing = float(np.mean([found is None for found in drawn]))
    return {"share": share, "error": standard_error(share, len(drawn)), "missing": missing}


def standard_error(share: float, n: int) -> float:
    """The Monte-Carlo standard error of a share of ``n`` data sets."""
    return math.sqrt(share * (1 - share) / n)
