import itertools

import numpy as np
import pytest

from persona_probe.statistics.max_statistic import max_statistic_p, smallest_p


def by_hand(sums: np.ndarray) -> list[float]:
    """All arrangements of signs, with Student's t."""

    def sizes(rows: np.ndarray) -> np.ndarray:
        return np.abs(rows.mean(axis=0) / (rows.std(axis=0, ddof=1) / np.sqrt(len(rows))))

    largest = [sizes(sums * np.array(signs)[:, None]).max() for signs in itertools.product([1, -1], repeat=len(sums))]
    return [float(np.mean(np.array(largest) >= size - 1e-9)) for size in sizes(sums)]


def test_few_questions_are_enumerated_exactly() -> None:
    changes = np.random.default_rng(0).normal([0.0, 0.8, 2.0], size=(7, 3))
    assert max_statistic_p(changes) == pytest.approx(by_hand(changes))


def test_whole_questions_are_flipped() -> None:
    sums = np.random.default_rng(1).normal([0.0, 1.0], size=(8, 2))
    rows, questions = np.repeat(sums / 5, 5, axis=0), np.repeat(np.arange(8), 5)
    assert max_statistic_p(rows, questions=questions) == pytest.approx(by_hand(sums))
    assert max_statistic_p(rows)[1] < max_statistic_p(rows, questions=questions)[1]


def test_random_flips_agree_with_all_flips() -> None:
    changes = np.random.default_rng(2).normal(size=(13, 4)) + 0.4
    exact, drawn = max_statistic_p(changes, n_permutations=4096), max_statistic_p(changes, n_permutations=4000)
    assert drawn == pytest.approx(exact, abs=0.03)
    np.testing.assert_array_equal(drawn, max_statistic_p(changes, n_permutations=4000))


def test_under_the_null_one_in_twenty_families_has_a_false_positive() -> None:
    rng = np.random.default_rng(3)
    smallest, questions = [], np.repeat(np.arange(20), 3)
    for _ in range(400):
        # layers move together, questions differ in scale and share their rows' change
        scale = rng.uniform(0.3, 2.0, size=(20, 1))
        shared = scale * rng.normal(size=(20, 1)) + 0.5 * scale * rng.normal(size=(20, 12))
        p = max_statistic_p(
            shared[questions] + 0.3 * rng.normal(size=(60, 12)), questions=questions, n_permutations=199
        )
        smallest.append(p.min())
    assert 0.025 <= np.mean(np.array(smallest) <= 0.05) <= 0.08
    assert 0.4 <= np.mean(np.array(smallest) <= 0.5) <= 0.6


def test_a_real_change_survives_the_correction_and_more_tests_cost_something() -> None:
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(30, 40))
    noise[:, 0] += 1.0
    together = max_statistic_p(noise, n_permutations=999)
    assert together[0] <= 0.01
    assert (together[1:] > 0.05).all()
    assert together[0] >= max_statistic_p(noise[:, :1], n_permutations=999)[0]


def test_no_change_at_all_has_p_one() -> None:
    changes = np.random.default_rng(5).normal(size=(9, 2)) + 3
    changes[:, 0] = 0.0
    assert max_statistic_p(changes).tolist() == [1.0, 1 / 256]


@pytest.mark.parametrize(("questions", "least"), [(1, 1.0), (5, 1 / 16), (11, 1 / 1024), (30, 1 / 2001)])
def test_the_least_p_is_what_flips_allow(questions: int, least: float) -> None:
    changes = 1 + 0.01 * np.random.default_rng(6).normal(size=(questions, 1))
    assert smallest_p(questions, 2000) == pytest.approx(least)
    assert max_statistic_p(changes)[0] == pytest.approx(least)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="n_permutations is 0"):
        max_statistic_p([[1.0]], n_permutations=0)
    with pytest.raises(ValueError, match=r"give 2 axes: \(row, test\)"):
        max_statistic_p([1.0, 2.0])
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        max_statistic_p([[1.0, np.nan]])
