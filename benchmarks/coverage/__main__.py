"""``make coverage``: draw data whose truth is known, count how often intervals contain it, and write the page.

Each case's result is stored at once, so that a run that was stopped is resumed. The page and the table in
``docs/explanation/one-run.md`` are made from the file of results alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# several processes share the cores; this must be set before numpy is imported, here and in each process
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks.coverage.case import Case
from benchmarks.coverage.judge import judge
from benchmarks.coverage.one_run import filled
from benchmarks.coverage.page import page, percentage, unexplained
from benchmarks.coverage.sections import SECTIONS, cases
from persona_probe.files import write_json, write_text

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "coverage.json"
PAGE = ROOT / "docs" / "reference" / "coverage.md"
ONE_RUN = ROOT / "docs" / "explanation" / "one-run.md"

Results = dict[str, dict[str, dict[str, Any]]]


def main() -> int:
    """The exit status: 1 if a row lies outside its range without a reason."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000, help="data sets per case (default 1,000)")
    parser.add_argument("--only", help=f"sections, separated by commas (default all: {','.join(SECTIONS)})")
    parser.add_argument("--again", action="store_true", help="repeat cases whose results are stored already")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: as many as cores")
    parser.add_argument("--out", type=Path, help="store results here, and do not change the documentation")
    given = parser.parse_args()
    sections = given.only.split(",") if given.only else list(SECTIONS)
    if wrong := [name for name in sections if name not in SECTIONS]:
        parser.error(f"no section {wrong[0]!r}: choose from {', '.join(SECTIONS)}")
    if min(given.repetitions, given.processes) < 1:
        parser.error("--repetitions and --processes must be at least 1")

    out = given.out or RESULTS
    results = run({name: cases(name) for name in sections}, given.repetitions, given.processes, given.again, out)
    if given.out is None:
        for path, text in documents(results).items():
            write_text(path, text)
    print(out)
    missing = unexplained({name: results[name] for name in sections})
    if missing:
        print(f"{len(missing)} rows lie outside their range without a reason (Case.why):", *missing, sep="\n  ")
    return 1 if missing else 0


def documents(results: Results) -> dict[Path, str]:
    """The pages that show these results."""
    return {PAGE: page(results), ONE_RUN: filled(ONE_RUN.read_text(encoding="utf-8"), results)}


def run(wanted: dict[str, dict[str, Case]], asked: int, processes: int, again: bool, out: Path) -> Results:
    """The results of all sections, after those cases were run that are not in the file yet.

    Args:
        wanted: the cases by section and key; in the file, these sections then hold no others.
        asked: number of data sets per case.
        processes: number of cases that are run at the same time.
        again: whether to repeat cases that are in the file already.
        out: the file, which is written after every case.
    """
    results: Results = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    todo: list[tuple[str, Case, int]] = []
    for section, by_key in wanted.items():
        stored = {} if again else results.get(section, {})
        for key, case in by_key.items():
            count = case.repetitions(asked)
            if stored.get(key, {}).get("repetitions") != count:
                todo.append((section, case, count))
        results[section] = {
            key: {**stored[key], "why": case.why, "cautious": case.cautious}
            for key, case in by_key.items()
            if key in stored
        }
    # long ones first, so that no process is left alone with one at the end
    todo.sort(key=lambda job: -job[1].cost * job[2])
    started = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(judge, section, case.key, count): (section, case) for section, case, count in todo}
        try:
            for number, future in enumerate(as_completed(running), start=1):
                section, case = running[future]
                found = future.result()
                results[section] = _in_order(results[section] | {case.key: found}, wanted[section])
                write_json(out, _in_order(results, SECTIONS))
                print(
                    f"[{number}/{len(todo)}, {time.perf_counter() - started:.0f} s] {section}: {case.what}, "
                    f"{case.setting}: {case.kind} {percentage(found)} % ({found['seconds']:.1f} s)",
                    flush=True,
                )
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_json(out, _in_order(results, SECTIONS))
    return results


def _in_order(entries: dict[str, Any], order: Any) -> dict[str, Any]:
    """The entries in the order of the page, which is not that in which they were done."""
    return {key: entries[key] for key in order if key in entries}


if __name__ == "__main__":
    raise SystemExit(main())
