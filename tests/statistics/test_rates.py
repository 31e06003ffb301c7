import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from persona_probe.statistics.rates import LEAST_ICC, mean_estimate, ratio_estimate

Booleans = npt.NDArray[np.bool_]


def some(successes: int, rows: int) -> Booleans:
    """The first ``successes`` of ``rows`` True."""
    return np.arange(rows) < successes


def test_share_is_over_denominator_rows_only() -> None:
    coherent = np.array([True] * 60 + [False] * 40)
    estimate = ratio_estimate(some(15, 100), coherent)
    assert estimate.value == 0.25
    assert estimate.n == 60
    assert estimate.low < 0.25 < estimate.high


def test_rows_outside_the_denominator_do_not_count_as_questions() -> None:
    rows = np.arange(80)
    bad = rows % 2 == 0
    alone = ratio_estimate(bad[40:], np.ones(40, bool), questions=rows[40:])
    beside = ratio_estimate(bad & (rows >= 40), rows >= 40, questions=rows)
    assert beside == alone


def test_independent_rows_give_wilsons_interval_at_every_rate() -> None:
    for successes in (1, 8, 120, 392):
        estimate = ratio_estimate(some(successes, 400), np.ones(400, bool))
        expected = stats.binomtest(successes, 400).proportion_ci(method="wilson")
        assert estimate.method.startswith("Wilson, effective n = ")
        assert [estimate.low, estimate.high] == pytest.approx([expected.low, expected.high], rel=0.02)


def test_copies_of_a_question_add_nothing() -> None:
    bad = np.random.default_rng(0).random(100) < 0.4
    once = ratio_estimate(bad, np.ones(100, bool), questions=np.arange(100))
    copied = ratio_estimate(np.repeat(bad, 10), np.ones(1000, bool), questions=np.repeat(np.arange(100), 10))
    assert [copied.low, copied.high] == pytest.approx([once.low, once.high])
    assert copied.n == 1000


def test_only_seeds_that_differ_leave_two_degrees_of_freedom() -> None:
    questions, seeds = np.repeat(np.arange(20), 30), np.tile(np.repeat(["a", "b", "c"], 10), 20)
    values = np.tile(np.repeat([0.5, 0.6, 0.7], 10), 20)  # every question alike
    estimate = mean_estimate(values, questions=questions, seeds=seeds)
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert estimate.method == "two-way t over 20 questions and 3 seeds"
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.02)


def test_seeds_that_differ_make_many_rows_worth_few() -> None:
    bad = np.concatenate([some(k, 20) for k in (10, 12, 14)] * 20)
    seeds = np.tile(np.repeat([0, 1, 2], 20), 20)
    estimate = ratio_estimate(bad, np.ones(1200, bool), questions=np.repeat(np.arange(20), 60), seeds=seeds)
    assert estimate.method == "Wilson, effective n = 14.94 (20 questions and 3 seeds)"
    # about as wide as the seeds' own t interval, which has two degrees of freedom
    assert estimate.high - estimate.low == pytest.approx(2 * stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3), rel=0.15)


def test_labels_may_be_text_or_numbers() -> None:
    bad = np.random.default_rng(0).random(90) < 0.5
    named = ratio_estimate(bad, np.ones(90, bool), questions=[f"q{row % 30}" for row in range(90)])
    numbered = ratio_estimate(bad, np.ones(90, bool), questions=np.arange(90) % 30)
    assert named == numbered


def test_none_at_all_is_bounded_by_the_stated_correlation() -> None:
    estimate = ratio_estimate(some(0, 480), np.ones(480, bool), questions=np.repeat(np.arange(40), 12))
    z, t = stats.norm.ppf(0.975), stats.t.ppf(0.975, 39)
    effective = 480 / (1 + 11 * LEAST_ICC) * (z / t) ** 2
    assert (estimate.value, estimate.low) == (0.0, 0.0)
    assert estimate.high == pytest.approx(z**2 / (effective + z**2))
    assert estimate.method == f"Wilson, effective n = {effective:.4g} (40 questions and 1 seed)"


@pytest.mark.parametrize(("questions", "answers"), [(24, 50), (8, 50), (48, 10), (8, 1)])
def test_every_further_event_raises_both_ends(questions: int, answers: int) -> None:
    asked, _ = (axis.ravel() for axis in np.indices((questions, answers)))
    order = np.argsort(np.arange(asked.size) % answers * questions + asked, kind="stable")  # one in each question first
    bad, low, high = np.zeros(asked.size, bool), [], []
    for row in order[: 2 * questions]:
        estimate = ratio_estimate(bad, np.ones(bad.size, bool), questions=asked)
        low.append(estimate.low)
        high.append(estimate.high)
        bad[row] = True
    assert np.all(np.diff(high) > 0)
    assert np.all(np.diff(low) >= 0)


def test_all_and_none_mirror_each_other() -> None:
    questions, seeds = np.repeat(np.arange(8), 6), np.tile(np.arange(3), 16)
    none = ratio_estimate(some(0, 48), np.ones(48, bool), questions=questions, seeds=seeds)
    every = ratio_estimate(some(48, 48), np.ones(48, bool), questions=questions, seeds=seeds)
    assert none.method == every.method
    assert [every.low, every.high] == pytest.approx([1 - none.high, 1.0])


@pytest.mark.parametrize("found", [1, 3])
def test_finding_bad_answers_in_one_question_does_not_narrow_the_interval(found: int) -> None:
    questions = np.repeat(np.arange(8), 50)
    none = ratio_estimate(some(0, 400), np.ones(400, bool), questions=questions)
    few = ratio_estimate(some(found, 400), np.ones(400, bool), questions=questions)
    assert few.high >= none.high


def test_near_zero_the_interval_reaches_further_up_than_down() -> None:
    bad = np.arange(400) % 100 == 0
    estimate = ratio_estimate(bad, np.ones(400, bool), questions=np.repeat(np.arange(40), 10))
    assert estimate.method.startswith("Wilson, effective n = ")
    assert 0 < estimate.value - estimate.low < estimate.high - estimate.value


def test_alike_questions_never_give_less_width_than_independent_rows() -> None:
    bad = np.tile([True, False], 200)  # every question exactly one half: no spread between questions
    estimate = ratio_estimate(bad, np.ones(400, bool), questions=np.repeat(np.arange(100), 4))
    assert estimate.high - estimate.low >= 2 * 1.96 * math.sqrt(0.25 / 400)


def test_a_single_question_and_seed_tell_next_to_nothing() -> None:
    estimate = ratio_estimate(some(50, 100), np.ones(100, bool), questions=np.zeros(100))
    assert estimate.high - estimate.low > 0.85


def test_no_denominator_row_is_missing() -> None:
    estimate = ratio_estimate(some(0, 5), some(0, 5))
    assert estimate.is_missing
    assert estimate.method == "no row qualifies"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([True, True], [True, False]), "1 rows are in the numerator but not in the denominator"),
        (([True], [True, True]), "numerator has 1 rows and denominator 2"),
        (([], []), "numerator is empty"),
        (([1.0, math.nan], [True, True]), "1 of 2 rows are not True or False"),
        (([0, 2], [True, True]), "the first is 2"),
    ],
)
def test_bad_rows_are_refused_in_words(arguments: tuple[list[float], list[bool]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ratio_estimate(*arguments)


def test_rows_without_a_question_are_refused() -> None:
    with pytest.raises(ValueError, match="questions: row 1 has no label"):
        ratio_estimate([True, False], [True, True], questions=np.array(["q", None], dtype=object))
    with pytest.raises(ValueError, match=r"seeds has shape \(3,\) but there are 2 rows"):
        ratio_estimate([True, False], [True, True], seeds=[1, 2, 3])


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_level_must_be_a_share(level: float) -> None:
    with pytest.raises(ValueError, match="level is"):
        ratio_estimate([True, False], [True, True], level=level)


def test_a_higher_level_is_wider() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert mean_estimate(values, level=0.99).high > mean_estimate(values, level=0.9).high


def test_mean_of_independent_rows_is_student() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=25)
    estimate = mean_estimate(values)
    expected = stats.t.interval(0.95, 24, loc=values.mean(), scale=stats.sem(values))
    assert (estimate.low, estimate.high) == pytest.approx(expected)


def test_mean_of_balanced_questions_is_student_over_question_means() -> None:
    values = np.random.default_rng(2).normal(size=(12, 5)) + np.arange(12)[:, None]
    estimate = mean_estimate(values.ravel(), questions=np.repeat(np.arange(12), 5))
    means = values.mean(axis=1)
    expected = stats.t.interval(0.95, 11, loc=means.mean(), scale=stats.sem(means))
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    assert estimate.method == "t over 12 questions and 1 seed"


def test_mean_over_one_question_is_student_over_seeds() -> None:
    values = np.array([1.0, 1.0, 2.0, 2.0, 6.0, 6.0])
    estimate = mean_estimate(values, questions=np.zeros(6), seeds=[1, 1, 2, 2, 3, 3])
    expected = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem([1.0, 2.0, 6.0]))
    assert (estimate.low, estimate.high) == pytest.approx(expected)


def test_mean_refuses_failed_rows_and_says_how_many() -> None:
    with pytest.raises(ValueError, match="2 of 4 values are NaN or infinite"):
        mean_estimate([1.0, math.nan, 3.0, math.nan])


def test_mean_of_one_cell_has_no_interval() -> None:
    estimate = mean_estimate([1.0, 2.0], questions=["same", "same"])
    assert estimate.value == 1.5
    assert math.isnan(estimate.low)
    assert estimate.method == "no interval from 1 question and 1 seed"
