import numpy as np
import pytest

from persona_probe.statistics.quantiles import quantile_estimate


def test_the_interval_covers_the_true_quantile_of_clustered_rows():
    """Rows of a question share a shift; rows alone would make the interval far too short."""
    rng = np.random.default_rng(0)
    questions = np.repeat(np.arange(40), 25)
    # The sum of two normals of variance 1.
    true = 1.6448536 * np.sqrt(2.0)
    naive = covered = 0
    for _ in range(100):
        values = rng.normal(size=40)[questions] + rng.normal(size=1000)
        found, alone = quantile_estimate(values, 0.95, questions=questions), quantile_estimate(values, 0.95)
        assert found.value == alone.value == np.quantile(values, 0.95)
        covered += found.low <= true <= found.high
        naive += alone.low <= true <= alone.high
    assert covered / 100 > 0.9
    assert naive < covered - 20


def test_a_share_outside_of_0_and_1_is_refused():
    with pytest.raises(ValueError, match="q is 95"):
        quantile_estimate([1.0, 2.0], 95)


@pytest.mark.parametrize(("questions", "rows", "spread"), [(100, 1, 0.0), (24, 10, 1.0), (8, 10, 1.0)])
def test_the_largest_row_is_no_bound_where_few_rows_are_beyond_the_quantile(questions, rows, spread):
    rng = np.random.default_rng(0)
    question = np.repeat(np.arange(questions), rows)
    true = 1.6448536 * np.sqrt(1 + spread**2)
    covered = 0
    for _ in range(100):
        values = spread * rng.normal(size=questions)[question] + rng.normal(size=question.size)
        found = quantile_estimate(values, 0.95, questions=question)
        covered += found.low <= true <= found.high
        assert np.isinf(found.high) == found.method.endswith("no upper end")
    assert covered >= 93


def test_one_question_has_no_interval():
    found = quantile_estimate([1.0, 2.0, 4.0], 0.5, questions=["a"] * 3)
    assert found.value == 2.0
    assert np.isnan(found.low)
    assert "no interval" in found.method
