import itertools

import numpy as np
import numpy.typing as npt
import pytest

from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rate_differences import Counts, ratio_difference
from persona_probe.statistics.rates import ratio_estimate

Booleans = npt.NDArray[np.bool_]


def asked(questions: int, answers: int, runs: int = 1) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The question and the run of each row."""
    by_question, by_run, _ = (axis.ravel() for axis in np.indices((questions, runs, answers)))
    return by_question, by_run


def counts(bad: Booleans, questions: npt.ArrayLike, seeds: npt.ArrayLike | None = None) -> Counts:
    return Counts(bad, np.ones(bad.size, bool), questions, seeds)


def test_a_clean_model_that_turns_on_every_question_is_seen() -> None:
    questions, _ = asked(24, 50)
    rose = ratio_difference(counts(np.zeros(1200, bool), questions), counts(np.arange(1200) % 10 == 0, questions))
    assert rose.value == pytest.approx(0.1)
    assert rose.low == pytest.approx(0.1 - 1.96 * (0.09 / 24 / 49) ** 0.5, abs=1e-4)  # questions that agree exactly
    assert 0.1 < rose.high < 0.2
    assert rose.method == "sign flips of 24 questions, one run each"


def test_two_rates_of_zero_differ_by_zero_within_bounds() -> None:
    questions, _ = asked(24, 50)
    none = counts(np.zeros(1200, bool), questions)
    change, alone = ratio_difference(none, none), ratio_estimate(none.numerator, none.denominator, questions=questions)
    assert (change.value, change.low) == (0.0, -change.high)
    assert change.high == pytest.approx(alone.high)


def every_flip(changes: npt.NDArray[np.float64]) -> float:
    flips = np.array(list(itertools.product([1.0, -1.0], repeat=changes.size)))
    return float(np.mean(np.abs(flips @ changes) >= abs(changes.sum()) - 1e-9))


@pytest.mark.parametrize("seed", range(12))
def test_zero_is_left_out_exactly_where_sign_flips_reject_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    questions, _ = asked(8, 10)
    first, second = (rng.random(80) < rate for rate in (0.1, 0.35))
    change = ratio_difference(counts(first, questions), counts(second, questions))
    per_question = second.reshape(8, 10).mean(axis=1) - first.reshape(8, 10).mean(axis=1)
    assert (change.low > 0 or change.high < 0) == (every_flip(per_question) <= 0.05)


@pytest.mark.parametrize("seed", range(4))
def test_both_ends_are_where_the_test_begins_to_reject(seed: int) -> None:
    rng = np.random.default_rng(seed)
    questions, _ = asked(8, 40)
    first, second = (rng.random(320) < rate for rate in (0.4, 0.6))
    change = ratio_difference(counts(first, questions), counts(second, questions))
    assert change.low > 0
    per_question = second.reshape(8, 40).mean(axis=1) - first.reshape(8, 40).mean(axis=1)
    within = sum(float(side.reshape(8, 40).var(axis=1, ddof=1).sum()) * 40 / 320**2 for side in (first, second))
    assert every_flip(per_question - (change.low - 1e-6)) <= 0.05
    nearest = change.low == pytest.approx(change.value - 1.96 * within**0.5, abs=1e-4)
    assert every_flip(per_question - (change.low + 1e-6)) > 0.05 or nearest
    assert every_flip(per_question - (change.high + 1e-6)) <= 0.05  # or further, by the rates' own intervals


def test_runs_of_the_two_sides_are_not_the_same_runs() -> None:
    """The audit's failing case: six runs of 10-60 %, and six others of 20-70 %, whose mean rates prove nothing."""
    rng = np.random.default_rng(0)
    questions, seeds = asked(24, 20, runs=6)
    effect = np.linspace(-2, 2, 24)[questions]

    def side(rates: list[float]) -> Counts:
        odds = np.log(np.array(rates) / (1 - np.array(rates)))[seeds] + effect
        return counts(rng.random(questions.size) < 1 / (1 + np.exp(-odds)), questions, seeds)

    change = ratio_difference(side([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), side([0.2, 0.3, 0.4, 0.5, 0.6, 0.7]))
    assert change.low < -0.08 < 0.2 < change.high
    assert change.method == "two-way t over 24 questions and 6 + 6 runs"


def covered(draw: list[tuple[Estimate, float]]) -> float:
    return float(np.mean([change.low <= truth <= change.high for change, truth in draw]))


@pytest.mark.parametrize(("before_runs", "after_runs"), [(3, 3), (5, 5), (1, 10)])
def test_the_interval_holds_what_recipes_do(before_runs: int, after_runs: int) -> None:
    rng = np.random.default_rng(5)

    def side(runs: int, effect: npt.NDArray[np.float64], spread: float) -> Counts:
        questions, seeds = asked(24, 20, runs)
        odds = spread * rng.standard_normal(runs)[seeds] + effect[questions]
        return counts(rng.random(questions.size) < 1 / (1 + np.exp(-odds)), questions, seeds)

    draws = []
    for _ in range(150):
        effect = rng.standard_normal(24)
        first = side(before_runs, effect, 0.0 if before_runs == 1 else 0.6)
        draws.append((ratio_difference(first, side(after_runs, effect, 0.6)), 0.0))
    assert covered(draws) >= 0.9


def test_unequal_and_missing_questions_fall_back_to_t() -> None:
    rng = np.random.default_rng(0)
    few, many = rng.random(40) < 0.3, rng.random(400) < 0.5
    change = ratio_difference(counts(few, np.arange(40) % 8), counts(many, np.arange(400) % 10))
    assert change.method == "t over 10 questions and 1 + 1 runs"
    five = ratio_difference(counts(few, np.arange(40) % 5), counts(many[:40], np.arange(40) % 5))
    assert five.method == "t over 5 questions and 1 + 1 runs"  # 16 flips cannot reject at 5 %


def test_a_rate_without_rows_is_missing() -> None:
    questions, _ = asked(8, 2)
    nothing = Counts(np.zeros(16, bool), np.zeros(16, bool), questions)
    assert ratio_difference(nothing, counts(np.ones(16, bool), questions)).is_missing
