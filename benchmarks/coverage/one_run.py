"""The tables of ``docs/explanation/one-run.md``, made from the results alone."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.coverage.amplification import ALONG, DIFFER, EXTRAS, SHARED, Setting, false_finding, true_finding
from benchmarks.coverage.case import Case
from benchmarks.coverage.page import percentage
from benchmarks.coverage.rates import equally_asked, one_run
from benchmarks.coverage.shifts import ALONG as RUNS_ALONG
from benchmarks.coverage.shifts import PLAIN as RUNS_PLAIN
from benchmarks.coverage.shifts import SHARED as RUNS_SHARED
from benchmarks.coverage.shifts import exchangeable, shift_of_runs

NOT_RUN = "–"
ONE_LAYER, CHOSEN = "one layer, fixed", "the best of 30 layers"
Lines = dict[str, list[Case | None]]

INTERVALS: Lines = {
    "EM rate of 10 %, one run": [one_run(0.1, "this run"), one_run(0.1, "the recipe")],
    "EM rate of 10 %, three runs": [None, equally_asked(0.1, 24, 20, 3, 50)],
    "EM rate of 10 %, five runs": [None, equally_asked(0.1, 24, 20, 5, 50)],
    "shift of 1 SD, one run": [shift_of_runs(1.0, 1, 0.3, of) for of in ("this run", "the recipe")],
    "shift of 1 SD, three runs": [None, shift_of_runs(1.0, 3, 0.3, "the recipe")],
    "shift of 1 SD, five runs": [None, shift_of_runs(1.0, 5, 0.3, "the recipe")],
}
LAYERS: Lines = {
    words: [exchangeable(recipe, 1, layers, True) for layers in (1, 30)]
    for words, recipe in (
        ("runs differ by 0.5 SD in every dimension", RUNS_PLAIN),
        ("the same, and both move by 1 SD along the direction", RUNS_SHARED),
        ("runs differ by 0.3 SD, and 3 times more along the direction", RUNS_ALONG),
    )
}
VERDICTS: Lines = {
    f"{runs} + {runs} run{'s' * (runs > 1)}": [
        false_finding(Setting(recipe, runs, layers)) for recipe in (SHARED, ALONG) for layers in (1, 30)
    ]
    for runs in (1, 3, 5)
}
POWER: Lines = {
    f"{extra:g} SD": [
        true_finding(Setting(DIFFER, runs, layers, extra, at))
        for layers, at in ((1, "all layers"), (30, "one layer"))
        for runs in (3, 5)
    ]
    for extra in EXTRAS
}
TABLES: dict[str, tuple[list[str], Lines]] = {
    "intervals": (["interval", "contains the value of these runs", "contains the value of the recipe"], INTERVALS),
    "layers": (["after and control are runs of one recipe", ONE_LAYER, CHOSEN], LAYERS),
    "verdicts": (
        [
            "called amplified, though it is not",
            f"runs alike in all directions: {ONE_LAYER}",
            CHOSEN,
            f"runs differ more along it: {ONE_LAYER}",
            CHOSEN,
        ],
        VERDICTS,
    ),
    "power": (
        [
            "true extra shift of after",
            "one layer, 3 + 3 runs",
            "one layer, 5 + 5 runs",
            "at one of 30 layers, 3 + 3 runs",
            "at one of 30 layers, 5 + 5 runs",
        ],
        POWER,
    ),
}


def filled(text: str, results: dict[str, Any]) -> str:
    """The page with its tables replaced by those of the results.

    Raises:
        RuntimeError: if the page lacks the markers of a table.
    """
    for name, (header, lines) in TABLES.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        if begin not in text or end not in text:
            raise RuntimeError(f"the markers {begin} and {end} are missing")
        table = _table(header, lines, results)
        text = re.sub(f"{begin}.*?{end}", lambda _, new=f"{begin}\n{table}\n{end}": new, text, flags=re.DOTALL)
    return text


def _table(header: list[str], lines: Lines, results: dict[str, Any]) -> str:
    rows = {key: row for section in results.values() for key, row in section.items()}
    written = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for words, asked in lines.items():
        found = [None if case is None else rows.get(case.key) for case in asked]
        cells = [NOT_RUN if row is None else f"{percentage(row)} %" for row in found]
        written.append(f"| {' | '.join([words, *cells])} |")
    return "\n".join(written)
