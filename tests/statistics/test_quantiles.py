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
