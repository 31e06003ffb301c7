"""Means over groups of rows, against the row-wise clustered variance and a simulation."""

import numpy as np
import pytest

from persona_probe.statistics.clustered_variance import clustered_variance
from persona_probe.statistics.grouped_means import grouped_difference, grouped_mean


def test_same_as_the_clustered_variance_of_rows() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 7, 50)
    values = rng.normal(size=(50, 3)) + rng.normal(size=7)[groups, None]
    sums = np.zeros((8, 3))  # the eighth group has no rows
    np.add.at(sums, groups, values)
    result = grouped_mean(sums, np.bincount(groups, minlength=8))
    assert result.mean == pytest.approx(values.mean(axis=0))
    assert result.degrees_of_freedom == 6
    for item in range(3):
        influence = (values[:, item] - values[:, item].mean()) / 50
        rowwise = clustered_variance(influence, groups.astype(np.intp), np.zeros(50, dtype=np.intp))
        assert result.standard_error[item] ** 2 == pytest.approx(rowwise.variance)
        half = rowwise.t_quantile(0.95) * np.sqrt(rowwise.variance)
        low, high = result.interval()
        assert (high - low)[item] / 2 == pytest.approx(half)


def test_intervals_cover_and_p_values_are_uniform_where_groups_share_an_effect() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 9, 30)
    groups = np.repeat(np.arange(30), counts)
    values = rng.normal(size=(30, 2000))[groups] + rng.normal(size=(len(groups), 2000))
    sums = np.zeros((30, 2000))
    np.add.at(sums, groups, values)
    result = grouped_mean(sums, counts)
    low, high = result.interval()
    assert 0.92 < ((low < 0) & (high > 0)).mean() < 0.97
    assert 0.03 < (result.p_values() < 0.05).mean() < 0.08


def test_one_group_has_no_interval_and_a_constant_item_no_p() -> None:
    alone = grouped_mean([[4.0]], [2])
    assert alone.mean.tolist() == [2.0]
    assert np.isnan(alone.standard_error).all()
    assert np.isnan(alone.p_values()).all()
    assert np.isnan(alone.interval()[0]).all()
    dead = grouped_mean([[0.0, 1.0], [0.0, 3.0]], [1, 1])
    assert np.isnan(dead.p_values()[0])
    assert 0 < dead.p_values()[1] < 1
    assert dead.interval()[0][0] == 0.0


@pytest.mark.parametrize(
    ("sums", "counts", "said"),
    [
        ([[1.0]], [1, 1], "1 groups and counts 2"),
        ([[1.0]], [0], "how many rows"),
        ([[1.0], [1.0]], [-1, 2], "how many rows"),
        ([[np.nan]], [1], "NaN"),
    ],
)
def test_refuses(sums: list[list[float]], counts: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        grouped_mean(sums, counts)


def test_a_difference_of_equal_counts_is_the_mean_of_differences():
    rng = np.random.default_rng(4)
    first, other, counts = rng.normal(size=(12, 5)), rng.normal(size=(12, 5)), np.full(12, 3)
    expected, found = grouped_mean(first - other, counts), grouped_difference(first, counts, other, counts)
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-12)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, rtol=1e-9)


def test_a_difference_of_unequal_counts_covers():
    rng, covered = np.random.default_rng(5), []
    for _ in range(1500):
        counts, others = rng.integers(1, 6, size=30), rng.integers(1, 6, size=30)
        shared = rng.normal(size=30)
        sums, other = (n * shared + np.sqrt(n) * rng.normal(size=30) for n in (counts, others))
        low, high = grouped_difference(sums[:, None], counts, other[:, None], others).interval()
        covered.append(low[0] <= 0 <= high[0])
    assert 0.93 <= np.mean(covered) <= 0.97


def test_differences_need_the_same_groups():
    with pytest.raises(ValueError, match="same groups"):
        grouped_difference(np.ones((2, 1)), [1, 1], np.ones((2, 1)), [1, 0])
