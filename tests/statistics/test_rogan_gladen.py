"""A rate is corrected for the judge's errors, with an interval that carries what is not known of them."""

import math

import numpy as np
import pytest

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.rates import ratio_estimate
from persona_probe.statistics.rogan_gladen import (
    NO_BETTER,
    FlaggedAnswers,
    LabelledAnswers,
    corrected_difference,
    corrected_rate,
    judge_errors,
)


def population(truth_rate, sensitivity, specificity, n=4000, questions=40):
    """Answers in exactly these shares, spread evenly over questions."""
    n_true = round(n * truth_rate)
    truth = np.arange(n) < n_true
    flagged = np.r_[
        np.arange(n_true) < round(n_true * sensitivity), np.arange(n - n_true) < round((n - n_true) * (1 - specificity))
    ]
    return truth, flagged, np.arange(n) % questions


def every(truth, flagged, questions, few=400):
    """Labels of so many flagged and so many other answers, evenly spread."""
    rows = np.concatenate(
        [np.flatnonzero(kind)[np.linspace(0, kind.sum() - 1, few).astype(int)] for kind in (flagged, ~flagged)]
    )
    return LabelledAnswers(truth[rows], flagged[rows], questions[rows])


def test_five_percent_false_positives_make_a_rate_of_two_percent_look_like_seven():
    truth, flagged, questions = population(0.02, 1.0, 0.95)
    judged = FlaggedAnswers(flagged, questions)
    assert judged.share(0.95).value == pytest.approx(0.02 + 0.98 * 0.05)
    rate = corrected_rate(judged, every(truth, flagged, questions))
    assert rate.value == pytest.approx(0.02, abs=0.002)
    assert rate.low < 0.02 < rate.high < judged.share(0.95).high


def test_sensitivity_and_specificity_do_not_depend_on_how_many_flagged_answers_were_labelled():
    truth, flagged, questions = population(0.3, 0.8, 0.9)
    judged = FlaggedAnswers(flagged, questions)
    for few in (100, 400):
        errors = judge_errors(judged, every(truth, flagged, questions, few))
        assert errors.sensitivity.value == pytest.approx(0.8, abs=0.03)
        assert errors.specificity.value == pytest.approx(0.9, abs=0.02)
        assert errors.better_than_chance
    # nor would the raw counts do: they hold as many flagged answers as others
    checked = every(truth, flagged, questions)
    assert np.asarray(checked.flagged)[np.asarray(checked.truth)].mean() > 0.85


def test_weights_undo_a_draw_that_was_unequal_among_answers_that_are_not_flagged():
    truth, flagged, questions = population(0.3, 0.8, 0.9)
    other = np.flatnonzero(~flagged)
    missed, right = other[truth[other]], other[~truth[other]]
    rows = np.concatenate([np.flatnonzero(flagged)[::4], missed[::2], right[::10]])
    weights = np.where(flagged[rows], 4.0, np.where(truth[rows], 2.0, 10.0))
    judged, drawn = FlaggedAnswers(flagged, questions), (truth[rows], flagged[rows], questions[rows])
    assert corrected_rate(judged, LabelledAnswers(*drawn, weights)).value == pytest.approx(0.3, abs=0.01)
    assert corrected_rate(judged, LabelledAnswers(*drawn)).value > 0.4


def test_on_the_answers_that_were_labelled_rogan_and_gladen_is_double_sampling():
    truth, flagged, questions = population(0.3, 0.8, 0.9)
    judged, checked = FlaggedAnswers(flagged, questions), every(truth, flagged, questions, 100)
    direct, carried = corrected_rate(judged, checked), corrected_rate(judged, checked, frame=judged)
    assert carried.value == pytest.approx(direct.value)
    assert (carried.low, carried.high) == (pytest.approx(direct.low, abs=0.003), pytest.approx(direct.high, abs=0.003))


def test_errors_measured_on_one_model_correct_another():
    truth, flagged, questions = population(0.3, 0.8, 0.9)
    frame, checked = FlaggedAnswers(flagged, questions), every(truth, flagged, questions)
    _, other, asked = population(0.05, 0.8, 0.9)
    rate = corrected_rate(FlaggedAnswers(other, asked), checked, frame=frame)
    assert rate.value == pytest.approx(0.05, abs=0.015)
    change = corrected_difference(FlaggedAnswers(other, asked), frame, checked, frame=frame)
    assert change.value == pytest.approx(0.25, abs=0.02)
    assert change.low < 0.25 < change.high


@pytest.mark.parametrize("n_flagged", [0, 300])
def test_at_zero_and_one_the_interval_has_a_width(n_flagged):
    flagged, questions = np.arange(300) < n_flagged, np.arange(300) % 20
    labelled = LabelledAnswers(np.full(30, n_flagged > 0), np.full(30, n_flagged > 0), np.arange(30) % 20)
    rate = corrected_rate(FlaggedAnswers(flagged, questions), labelled)
    assert rate.value == float(n_flagged > 0)
    assert 0.05 < rate.high - rate.low < 0.3


def test_a_judge_that_is_no_better_than_chance_gives_no_rate_elsewhere_but_labels_still_do_here():
    questions = np.arange(1000) % 20
    flagged = np.arange(1000) < 200
    checked = LabelledAnswers(np.arange(100) % 11 == 0, np.arange(100) < 50, np.arange(100) % 20)
    judged = FlaggedAnswers(flagged, questions)
    rate = corrected_rate(judged, checked, frame=judged)
    assert math.isnan(rate.value)
    assert (rate.low, rate.high) == (0.0, 1.0)
    assert rate.method.startswith(NO_BETTER)
    assert "sensitivity 0.20 + specificity 0.80" in rate.method
    change = corrected_difference(judged, judged, checked, frame=judged)
    assert (change.low, change.high) == (-1.0, 1.0)
    here = corrected_rate(judged, checked)
    assert here.value == pytest.approx(0.1)
    assert here.high - here.low < 0.25


def test_more_labels_make_it_narrower_and_it_is_the_same_every_time():
    truth, flagged, questions = population(0.1, 0.9, 0.9)
    judged = FlaggedAnswers(flagged, questions)
    widths = []
    for few in (20, 100, 350):
        rate = corrected_rate(judged, every(truth, flagged, questions, few))
        assert rate == corrected_rate(judged, every(truth, flagged, questions, few))
        widths.append(rate.high - rate.low)
    assert widths[0] > 1.5 * widths[1] > 1.5 * widths[2]


def test_labels_of_unflagged_answers_only_say_nothing_of_flagged_ones():
    flagged, questions = np.arange(300) < 30, np.arange(300) % 20
    rate = corrected_rate(
        FlaggedAnswers(flagged, questions), LabelledAnswers([False] * 20, [False] * 20, np.arange(20))
    )
    assert rate.is_missing
    assert rate.method == "no answer that the judge flags was labelled"


def test_wrong_arrays_are_named():
    judged = FlaggedAnswers([True, False], ["a", "b"])
    for checked, message in (
        (LabelledAnswers([True], [True, False], ["a", "b"]), "truth has 1 rows and flagged 2"),
        (LabelledAnswers([True, False], [True, False], ["a"]), "questions has shape"),
        (LabelledAnswers([True, np.nan], [True, False], ["a", "b"]), "truth: 1 of 2 rows are not True or False"),
        (LabelledAnswers([True, False], [True, False], ["a", "b"], [1.0, 0.0]), "weights: row 1 has 0"),
    ):
        with pytest.raises(PersonaProbeError, match=message):
            corrected_rate(judged, checked)


def test_a_weighted_share_with_equal_weights_is_the_plain_one():
    top, questions = np.arange(60) % 7 == 0, np.arange(60) % 12
    plain = ratio_estimate(top, np.ones(60, dtype=bool), questions=questions)
    weighted = ratio_estimate(top, np.ones(60, dtype=bool), questions=questions, weights=np.full(60, 3.0))
    assert (weighted.value, weighted.low, weighted.high) == pytest.approx((plain.value, plain.low, plain.high))
    heavy = ratio_estimate([1, 0, 0, 0], [1, 1, 1, 1], weights=[9.0, 1.0, 1.0, 1.0])
    assert heavy.value == 0.75
    assert heavy.high - heavy.low > 0.8  # one row makes most of it
