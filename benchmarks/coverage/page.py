"""``docs/reference/coverage.md``, made from the results alone, and the rows that need a reason and have none."""

from __future__ import annotations

import inspect
import math
from itertools import groupby
from typing import Any

from benchmarks.coverage.case import LEAST_REPETITIONS
from benchmarks.coverage.sections import SECTIONS, module

NOMINAL = {"coverage": 0.95, "size": 0.05}
TOLERANCE = 0.02
"""A coverage of 93 to 97 % is as it should be."""
INTRODUCTION = """# Coverage: do the intervals contain the truth?

<!-- made by python -m benchmarks.coverage from benchmarks/results/coverage.json: do not edit -->

Whether a method works can be tried out: make data whose truth is known, let the package compute its interval or its
verdict, and count. This page does so for what the package prints with an interval or a verdict, many times
for each setting.

- **coverage**: the share of 95 % intervals that contain the truth. It should be 95 %. "Below" and "above" are the
  shares of intervals that lie wholly below and wholly above the truth: one-sided misses mean a biased interval. A
  coverage above 95 % is safe, but such an interval is wider than it has to be.
- **size**: how often something is found where there is nothing. It should be at most 5 %.
- **power**: how often something is found where it is there. There is no right value: it says how much data a finding
  needs.

The number after ± is the Monte-Carlo standard error, from the limited number of data sets. At 0 and at 100 % there is
the one-sided 95 % bound instead: "0 (< 0.3)" means that none of 1,000 data sets had it, and that the truth is below
0.3 %. Expensive settings have fewer data sets (column "sets"), at least {least}.

A coverage outside 93 to 97 % and a size above 5 % has its reason in the last column. A row without a reason makes the
command fail. What the Monte-Carlo error explains is not outside: 2.5 standard errors of 95 % where that is more than
two points, and 2 standard errors of 5 %. Each number holds for the data that are described, not in general.

```bash
make coverage
```

repeats everything (hours on two cores; what is already in `benchmarks/results/coverage.json` is not repeated,
unless with `python -m benchmarks.coverage --again`) and writes this page. Every setting has its own seed, which is in
the JSON file. What the numbers mean for a study is said in [What one run can and cannot
say](../explanation/one-run.md)."""


def page(results: dict[str, Any]) -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION.format(least=LEAST_REPETITIONS)]
    for section in SECTIONS:
        rows = list(results.get(section, {}).values())
        if rows:
            parts += [f"## {section.capitalize()}", inspect.cleandoc(module(section).__doc__ or "")]
            parts += [_table(what, list(some)) for what, some in groupby(rows, key=lambda row: row["what"])]
    return "\n\n".join(parts) + "\n"


def unexplained(results: dict[str, Any]) -> list[str]:
    """The rows that lie outside their range and give no reason, each as a line."""
    return [
        f"{section}: {row['what']}, {row['setting']}: {row['kind']} {percentage(row)} %"
        for section in SECTIONS
        for row in results.get(section, {}).values()
        if is_outside(row) and not reason(row)
    ]


def is_outside(row: dict[str, Any]) -> bool:
    """Whether a coverage is outside 93 to 97 %, or a size above 5 %, by more than the Monte-Carlo error allows."""
    if row["kind"] == "power":
        return False
    if row["share"] is None:
        return True
    nominal = NOMINAL[row["kind"]]
    error = math.sqrt(nominal * (1 - nominal) / row["repetitions"])
    if row["kind"] == "size":
        return bool(row["share"] > nominal + 2 * error)
    return bool(abs(row["share"] - nominal) > max(TOLERANCE, 2.5 * error) + 1e-9)


def reason(row: dict[str, Any]) -> str:
    """Why a row lies outside its range; empty if nobody has said."""
    above = row["kind"] == "coverage" and row["share"] is not None and row["share"] > NOMINAL["coverage"]
    return str((above and row.get("cautious")) or row["why"])


def percentage(row: dict[str, Any]) -> str:
    """``95.1 ± 0.7``; at the ends ``100 (> 99.7)`` and ``0 (< 0.3)``."""
    share, bound = row["share"], min(100.0, 300 / row["repetitions"])
    if share is None:
        return "–"
    if share in (0.0, 1.0):
        return f"0 (< {bound:.1f})" if share == 0.0 else f"100 (> {100 - bound:.1f})"
    return f"{100 * share:.1f} ± {100 * row['error']:.1f}"


def _table(what: str, rows: list[dict[str, Any]]) -> str:
    lines = [f"### `{what}`", ""]
    lines += ["| setting | asked | % | below / above % | mean width | sets | reason |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        why = reason(row) if is_outside(row) else ""
        cells = [row["setting"], row["kind"], percentage(row), _misses(row), _width(row), _sets(row), why]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _misses(row: dict[str, Any]) -> str:
    return f"{100 * row['below']:.1f} / {100 * row['above']:.1f}" if "below" in row else ""


def _width(row: dict[str, Any]) -> str:
    """The mean width of the intervals that have two ends."""
    if row.get("width") is None:
        return ""
    unbounded = f" ({100 * row['unbounded']:.0f} % without an end)" if row["unbounded"] else ""
    return f"{row['width']:.3g}{unbounded}"


def _sets(row: dict[str, Any]) -> str:
    missing = f" ({100 * row['missing']:.0f} % without an answer)" if row["missing"] else ""
    return f"{row['repetitions']:,}{missing}"
