import math

import numpy as np
import pytest
from scipy import stats

from persona_probe.statistics.power import power_of_t, smallest_detectable
from persona_probe.statistics.rates import mean_estimate


def test_power_is_the_noncentral_t() -> None:
    edge = stats.t.ppf(0.975, 12)
    expected = stats.nct.sf(edge, 12, 2.5) + stats.nct.cdf(-edge, 12, 2.5)
    assert power_of_t(2.5, 12) == pytest.approx(expected)
    assert power_of_t(-2.5, 12) == power_of_t(2.5, 12)
    assert power_of_t(0.0, 12) == pytest.approx(0.05)
    assert power_of_t(60.0, 3) == pytest.approx(1.0)


def test_with_many_rows_it_is_the_textbook_2_8_standard_errors() -> None:
    values = np.random.default_rng(0).normal(size=4000)
    error = values.std(ddof=1) / math.sqrt(4000)
    assert smallest_detectable(values) == pytest.approx(2.8016 * error, rel=1e-3)


def test_what_is_called_detectable_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(1)
    questions, truth = np.repeat(np.arange(12), 4), 0.7
    error = math.sqrt((0.6**2 + 0.8**2 / 4) / 12)
    seen = [
        mean_estimate(truth + 0.6 * rng.normal(size=12)[questions] + 0.8 * rng.normal(size=48), questions=questions).low
        > 0
        for _ in range(600)
    ]
    assert np.mean(seen) == pytest.approx(power_of_t(truth / error, 11), abs=0.045)
    detectable = [
        smallest_detectable(0.6 * rng.normal(size=12)[questions] + 0.8 * rng.normal(size=48), questions=questions)
        for _ in range(200)
    ]
    assert power_of_t(float(np.median(detectable)) / error, 11) == pytest.approx(0.8, abs=0.05)


def test_three_seeds_that_differ_can_see_little() -> None:
    rng = np.random.default_rng(2)
    questions, seeds = np.tile(np.arange(20), 3), np.repeat(np.arange(3), 20)
    values = rng.normal(size=3)[seeds] + 0.1 * rng.normal(size=60)
    assert smallest_detectable(values, questions=questions, seeds=seeds) > 5 * smallest_detectable(
        values, questions=questions
    )


def test_edges_are_honest() -> None:
    assert math.isnan(smallest_detectable([1.0, 2.0], questions=["q", "q"]))
    assert smallest_detectable([0.5, 0.5, 0.5]) == 0.0
    assert 5 < smallest_detectable([0.0, 1.0]) < 50  # one degree of freedom
    with pytest.raises(ValueError, match="power is 80"):
        smallest_detectable([1.0, 2.0], power=80)
    with pytest.raises(ValueError, match=r"power is 0\.01"):
        smallest_detectable([1.0, 2.0], power=0.01)
