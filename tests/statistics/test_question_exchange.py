"""Exchanging labels of whole questions: what changes places, how often, and what it costs."""

import numpy as np
import pytest

from persona_probe.statistics.nulls import shuffled_label_differences
from persona_probe.statistics.question_exchange import QuestionExchange, share_at_least, upper_quantile


def both_classes(questions: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    return np.tile(np.repeat([True, False], rows), questions), np.repeat(np.arange(questions), 2 * rows)


def test_questions_in_both_classes_flip_the_sign_of_their_difference() -> None:
    labels, questions = both_classes(3, 2)
    exchange = QuestionExchange.of(labels, questions)
    values = np.random.default_rng(0).normal(size=(12, 4))
    weights = np.where(labels, 1 / 6, -1 / 6)
    drawn = exchange.draws(1000, np.random.default_rng(0))
    sums = exchange.coefficients(drawn, weights) @ exchange.means(values, weights)
    by_question = [
        values[labels & (questions == q)].mean(0) - values[~labels & (questions == q)].mean(0) for q in range(3)
    ]
    signs = np.array(np.meshgrid(*[[1, -1]] * 3)).reshape(3, -1).T
    expected = signs @ np.array(by_question) / 3
    assert sorted(map(tuple, sums.round(9))) == sorted(map(tuple, expected.round(9)))
    np.testing.assert_allclose(sums[0], by_question and np.mean(by_question, axis=0))


def test_weights_stay_where_classes_have_different_numbers_of_rows() -> None:
    """What a question adds to both classes alike is no part of what is flipped."""
    labels = np.array([True, False, False, False, True, True, True, False])
    questions = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    exchange = QuestionExchange.of(labels, questions)
    weights = np.where(labels, 1 / 4, -1 / 4)
    level = np.array([5.0, -5.0])[questions][:, None]  # of the questions; the classes do not differ
    sums = exchange.coefficients(exchange.draws(10, np.random.default_rng(0)), weights) @ exchange.means(level, weights)
    np.testing.assert_allclose(sums, -5.0)


def test_questions_of_one_class_exchange_places_with_those_of_similar_size() -> None:
    questions = np.repeat(np.arange(8), [1, 1, 1, 1, 10, 10, 10, 10])
    exchange = QuestionExchange.of(questions % 2 == 0, questions)
    assert [len(cells) for cells in exchange.dealt] == [4, 4]
    assert exchange.arrangements == 36
    assert "8 can be exchanged in 36 ways" in exchange.too_few
    drawn = exchange.sample(50, np.random.default_rng(0))
    assert (np.sort(drawn[:, :4]) == np.arange(4)).all()
    assert len(np.unique(drawn, axis=0)) > 30


@pytest.mark.parametrize(("questions", "enough"), [(6, False), (7, True)])
def test_too_few_questions_have_no_quantile(questions: int, enough: bool) -> None:
    exchange = QuestionExchange.of(*both_classes(questions, 2))
    assert (exchange.too_few == "") == enough
    assert len(exchange.draws(1000, np.random.default_rng(0))) == 2**questions


def test_the_actual_arrangement_counts_and_the_quantile_agrees_with_p() -> None:
    lengths = np.random.default_rng(0).normal(size=(201, 400))
    longer = lengths[0] > upper_quantile(lengths)
    np.testing.assert_array_equal(longer, share_at_least(np.exp(lengths)) <= 0.025)


def test_directions_from_exchanged_labels_vary_as_questions_do() -> None:
    """Rows of one question in one class share a vector; shuffling single rows would average it out."""
    rng = np.random.default_rng(0)
    labels, questions = both_classes(12, 20)
    cell = 2 * questions + labels
    shared = np.zeros((24, 8))
    shared[:, 0] = rng.normal(size=24)
    values = shared[cell] + rng.normal(size=(480, 8))
    by_row = shuffled_label_differences(values, labels, 200, seed=0)
    by_question = shuffled_label_differences(values, labels, 200, seed=0, questions=questions)
    assert (by_question[:, 0] ** 2).mean() > 2 * (by_row[:, 0] ** 2).mean()
    np.testing.assert_allclose(np.linalg.norm(by_question, axis=1), 1.0)


def test_a_single_question_has_no_other_direction() -> None:
    labels, questions = both_classes(1, 4)
    values = np.random.default_rng(0).normal(size=(8, 3))
    with pytest.raises(ValueError, match=r"0 of 5 directions .* 1 questions differ in 2 arrangements only"):
        shuffled_label_differences(values, labels, 5, seed=0, questions=questions)


def test_shuffled_directions_do_not_point_along_a_difference_that_varies_in_strength() -> None:
    """The same answers in two contexts: what they say cancels in pairs, which differ in how strong the trait is."""
    rng = np.random.default_rng(0)
    questions, labels = np.tile(np.arange(24), 2), np.repeat([True, False], 24)
    values = np.tile(5.0 * rng.normal(size=(24, 32)), (2, 1)) + 0.2 * rng.normal(size=(48, 32))
    values[labels, 0] += 6.0 * rng.uniform(0, 2, size=24)
    drawn = shuffled_label_differences(values, labels, 400, seed=0, questions=questions)
    assert np.quantile(np.abs(drawn[:, 0]), 0.5) < 0.25
    pairs = values[labels] - values[~labels]
    flips = rng.choice([-1.0, 1.0], size=(400, 24)) @ (pairs - pairs.mean(axis=0))
    assert np.quantile(np.abs(flips[:, 0]) / np.linalg.norm(flips, axis=1), 0.5) > 0.8  # what flips would give
