import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from persona_probe.statistics.nulls import (
    isotropic_directions,
    matched_random_directions,
    shuffled_label_differences,
    specificity,
)


def test_matched_directions_lie_where_the_rows_do() -> None:
    rng = np.random.default_rng(0)
    rows = 100 + rng.normal(size=(300, 8)) * np.array([10, 5, 1, 1, 1, 0.1, 0.1, 0.0])
    directions = matched_random_directions(rows, 4000, seed=1)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    share = (directions**2).mean(axis=0)
    assert share[0] > 0.6 > 0.3 > share[1] > 0.1
    assert share[7] < 1e-20  # no variance there, so no direction points there
    assert np.abs(directions.mean(axis=0)).max() < 0.06  # the rows' large mean is not in them


def test_matched_directions_have_the_rows_covariance_before_scaling() -> None:
    # equal variances correlated at 0.8: unit vectors keep the correlation's sign and axis
    rng = np.random.default_rng(0)
    rows = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], size=2000)
    directions = matched_random_directions(rows, 4000, seed=0)
    axis = np.linalg.eigh(directions.T @ directions)[1][:, -1]
    assert abs(axis @ np.array([1, 1]) / math.sqrt(2)) > 0.99


def test_isotropic_directions_favour_no_axis() -> None:
    directions = isotropic_directions(5000, 6, seed=0)
    assert directions.shape == (5000, 6)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    np.testing.assert_allclose((directions**2).mean(axis=0), 1 / 6, atol=0.01)


def test_shuffled_labels_lose_the_planted_difference() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(200) < 60
    values = rng.normal(size=(200, 32))
    values[:, 0] += 3 * labels
    true = values[labels].mean(axis=0) - values[~labels].mean(axis=0)
    directions = shuffled_label_differences(values, labels, 500, seed=0)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    cosines = directions @ true / np.linalg.norm(true)
    assert abs(cosines.mean()) < 0.05
    assert np.abs(cosines).max() < 0.9


def test_shuffled_labels_do_not_point_along_the_difference() -> None:
    """Even where the difference between the classes is nearly all of the spread."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) < 25
    difference = np.zeros(8)
    difference[0] = 100.0
    directions = shuffled_label_differences(
        rng.normal(size=(60, 8)) + labels[:, None] * difference, labels, 200, seed=0
    )
    assert (directions[:, 0] ** 2).mean() < 0.25  # of eight dimensions; without centring it is nearly 1


def test_shuffled_labels_keep_class_sizes() -> None:
    # one row a dimension, so a direction shows the weights that it gave to the rows, but for what centring took
    labels = np.arange(12) < 4
    drawn = shuffled_label_differences(np.eye(12), labels, 30, seed=0)
    for direction in drawn:
        for side in (labels, ~labels):
            assert abs(direction[side].sum()) < 1e-12
            assert len(np.unique(direction[side].round(9))) <= 2
    assert len(np.unique(drawn.round(6), axis=0)) > 20


def test_seeds_decide() -> None:
    rows, labels = np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) < 10
    draws: list[Callable[[int], npt.NDArray[np.float64]]] = [
        lambda seed: matched_random_directions(rows, 3, seed),
        lambda seed: isotropic_directions(3, 5, seed),
        lambda seed: shuffled_label_differences(rows, labels, 3, seed),
    ]
    for draw in draws:
        np.testing.assert_array_equal(draw(1), draw(1))
        assert not np.allclose(draw(1), draw(2))


def test_rows_that_cannot_differ_are_refused() -> None:
    same = np.full((7, 3), 0.1)
    with pytest.raises(ValueError, match="all 7 rows of deltas_covariance_source are the same"):
        matched_random_directions(same, 2, seed=0)
    with pytest.raises(ValueError, match="all 7 rows of values are the same"):
        shuffled_label_differences(same, np.arange(7) < 3, 2, seed=0)
    with pytest.raises(ValueError, match="within each class all rows of values are the same"):
        shuffled_label_differences(np.repeat([[1.0, 0.3], [0.1, 0.0]], 5, axis=0), np.arange(10) < 5, 2, seed=0)
    with pytest.raises(ValueError, match="at least 2"):
        matched_random_directions(same[:1], 2, seed=0)


def test_null_inputs_are_refused_in_words() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 3))
    with pytest.raises(ValueError, match="both classes"):
        shuffled_label_differences(rows, np.ones(4, bool), 2, seed=0)
    with pytest.raises(ValueError, match="values has 4 rows and labels 3"):
        shuffled_label_differences(rows, [1, 0, 1], 2, seed=0)
    with pytest.raises(ValueError, match="n is 0"):
        isotropic_directions(0, 3, seed=0)
    with pytest.raises(ValueError, match="d_model is 0"):
        isotropic_directions(3, 0, seed=0)
    rows[2, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 12 values are NaN"):
        matched_random_directions(rows, 2, seed=0)


def test_specificity_divides_by_whichever_is_larger() -> None:
    shifts = np.linspace(-1, 1, 201)
    assert specificity(5.0, 0.5, shifts) == pytest.approx(4.5 / 0.975, rel=0.01)
    assert specificity(5.0, -2.0, shifts) == pytest.approx(7.0 / 2.0)
    assert specificity(-5.0, 2.0, shifts) == pytest.approx(7.0 / 2.0)
    assert specificity(5.0, 0.0, shifts, quantile=1.0) == pytest.approx(5.0)


def test_a_shift_that_any_training_shows_is_not_specific() -> None:
    assert specificity(3.1, 3.0, np.random.default_rng(0).normal(size=1000) * 0.1) < 0.05


@pytest.mark.parametrize(
    ("after", "control", "shifts", "message"),
    [
        (1.0, 0.0, [], "random_shifts is empty"),
        (1.0, 0.0, [0.1, math.nan], "random_shifts: 1 of 2 values are NaN"),
        (math.nan, 0.0, [0.1], "after is nan"),
        (1.0, math.inf, [0.1], "control is inf"),
        (1.0, 0.0, [0.0, 0.0], "nothing to compare"),
    ],
)
def test_specificity_refuses_what_it_cannot_divide(
    after: float, control: float, shifts: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        specificity(after, control, shifts)


def test_specificity_refuses_a_quantile_in_percent() -> None:
    with pytest.raises(ValueError, match=r"quantile is 97\.5"):
        specificity(1.0, 0.0, [0.1], quantile=97.5)
