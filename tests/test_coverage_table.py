"""The coverage table: it is resumed, it demands reasons, its pages show the results and nothing else."""

import json
import math
from concurrent.futures import Future

import numpy as np
import pytest

from benchmarks.coverage import __main__ as command
from benchmarks.coverage.case import Case
from benchmarks.coverage.judge import row
from benchmarks.coverage.means import FEW_RUNS, UNEVEN
from benchmarks.coverage.one_run import TABLES
from benchmarks.coverage.page import is_outside, percentage, unexplained
from benchmarks.coverage.rates import SKEWED
from benchmarks.coverage.sections import SECTIONS, cases

REPETITIONS, SECONDS = 100, 8.0
"""Of the slow test: data sets per case, and about how long a section takes; of more cases, every so many are judged."""


def interval(centre, why="", cost=1.0):
    """A 95 % interval of a normal mean, if ``centre`` is 0."""

    def draw(rng):
        value = rng.standard_normal() + centre
        return value - 1.96, value + 1.96, 0.0

    return Case("interval", f"centre {centre}", "coverage", draw, why, cost)


def test_a_case_is_counted():
    counted = row(interval(0.0), 2000)
    assert counted["share"] == pytest.approx(0.95, abs=0.015)
    assert counted["share"] + counted["below"] + counted["above"] == pytest.approx(1.0)
    assert counted["width"] == pytest.approx(3.92)
    assert not is_outside(counted)
    shifted = row(interval(2.0), 300)
    assert shifted["above"] > 0.4 > shifted["below"]
    assert is_outside(shifted)


def test_what_has_no_interval_or_no_end_is_counted_apart():
    answers = iter([None, (np.nan, 1.0, 0.0), (-1.0, np.inf, 0.0), (1.0, 2.0, 0.0)])
    counted = row(Case("some", "", "coverage", lambda rng: next(answers)), 4)
    assert (counted["missing"], counted["share"], counted["unbounded"], counted["width"]) == (0.5, 0.5, 0.5, 1.0)


def test_a_size_may_exceed_5_percent_by_chance_only():
    counted = {"kind": "size", "repetitions": 1000, "why": ""}
    assert not is_outside({**counted, "share": 0.06})
    assert is_outside({**counted, "share": 0.07})
    assert not is_outside({**counted, "kind": "power", "share": 0.5})


def test_numbers_at_the_ends_have_a_bound():
    assert percentage({"share": 0.0, "repetitions": 300}) == "0 (< 1.0)"
    assert percentage({"share": 1.0, "repetitions": 1000}) == "100 (> 99.7)"


def test_a_seed_does_not_depend_on_other_cases():
    one, other = interval(0.0), interval(1.0)
    assert one.seed == interval(0.0).seed != other.seed
    assert interval(0.0, cost=500.0).repetitions(1000) == 300


def test_a_stopped_run_is_resumed_and_demands_reasons(tmp_path, monkeypatch):
    drawn = []

    class AtOnce:  # the pool, without processes
        def __init__(self, *_, **__): ...
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def shutdown(self, **_): ...
        def submit(self, _, section, key, count):
            drawn.append(key)
            future = Future()
            future.set_result(row(wanted[section][key], count))
            return future

    monkeypatch.setattr(command, "ProcessPoolExecutor", AtOnce)
    out = tmp_path / "results.json"
    first, second = interval(0.0), interval(3.0)
    wanted = {"rates": {first.key: first}}
    command.run(wanted, 300, 1, again=False, out=out)
    wanted = {"rates": {second.key: second, first.key: first}}
    results = command.run(wanted, 300, 1, again=False, out=out)
    assert drawn == [first.key, second.key]
    assert list(json.loads(out.read_text())["rates"]) == [second.key, first.key]
    assert len(unexplained(results)) == 1
    wanted = {"rates": {second.key: interval(3.0, why="on purpose"), first.key: first}}
    assert unexplained(command.run(wanted, 300, 1, again=False, out=out)) == []
    assert len(drawn) == 2
    command.run(wanted, 310, 1, again=False, out=out)
    command.run(wanted, 310, 1, again=True, out=out)
    assert len(drawn) == 6


def test_the_pages_show_the_results_and_nothing_else():
    if not command.RESULTS.exists():
        pytest.skip("make coverage was not run")
    results = json.loads(command.RESULTS.read_text(encoding="utf-8"))
    for path, text in command.documents(results).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python -m benchmarks.coverage"


def test_the_page_on_one_run_asks_for_cases_that_exist():
    keys = {key for section in SECTIONS for key in cases(section)}
    for _, lines in TABLES.values():
        assert {case.key for line in lines.values() for case in line if case is not None} <= keys


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_intervals_hold_the_truth_and_tests_keep_their_size(section):
    """Below 90 % coverage, or above 10 % size, by more than two Monte-Carlo standard errors fails; seeded."""
    meant = ("", SKEWED, FEW_RUNS, UNEVEN)  # reasons that do not take a case below 90 %
    cheap = [case for case in cases(section).values() if case.kind != "power" and case.why in meant and case.cost <= 40]
    step = math.ceil(sum(case.cost for case in cheap) * REPETITIONS / 1000 / SECONDS)
    allowed = 2 * math.sqrt(0.1 * 0.9 / REPETITIONS)
    found = [row(case, REPETITIONS) for case in cheap[::step]]
    wrong = [
        f"{counted['what']}, {counted['setting']}: {counted['kind']} {percentage(counted)} %"
        for counted in found
        if counted["share"] is None
        or (counted["kind"] == "coverage" and counted["share"] < 0.9 - allowed)
        or (counted["kind"] == "size" and counted["share"] > 0.1 + allowed)
    ]
    assert found
    assert wrong == []
