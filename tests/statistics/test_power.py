import math

import numpy as np
import pytest
from scipy import stats

from persona_probe.statistics.power import power_of_t, smallest_detectable


def test_power_is_the_noncentral_t() -> None:
    edge = stats.t.ppf(0.975, 12)
    expected = stats.nct.sf(edge, 12, 2.5) + stats.nct.cdf(-edge, 12, 2.5)
    assert power_of_t(2.5, 12) == pytest.approx(expected)
    assert power_of_t(-2.5, 12) == power_of_t(2.5, 12)
    assert power_of_t(0.0, 12) == pytest.approx(0.05)
    assert power_of_t(60.0, 3) == pytest.approx(1.0)


def test_with_many_degrees_of_freedom_it_is_the_textbook_2_8_standard_errors() -> None:
    assert smallest_detectable(0.04, 4000.0) == pytest.approx(2.8016 * 0.2, rel=2e-3)


@pytest.mark.parametrize("freedom", [2, 5, 11, 47])
def test_what_is_called_detectable_is_detected_four_times_in_five(freedom: int) -> None:
    """Over data sets, not only in the middle one: with few runs a plug-in promises 80 % and gives 57-64 %."""
    rng = np.random.default_rng(1)
    estimated = rng.chisquare(freedom, size=2000) / freedom  # variances where the true one is 1
    given = [float(power_of_t(smallest_detectable(variance, freedom), freedom)) for variance in estimated]
    assert np.mean(given) == pytest.approx(0.8, abs=0.03)


def test_three_seeds_that_differ_can_see_little() -> None:
    assert smallest_detectable(1.0, 2.0) > 2.5 * smallest_detectable(1.0, 19.0)


def test_edges_are_honest() -> None:
    assert math.isnan(smallest_detectable(math.nan, math.nan))
    assert smallest_detectable(0.0, 2.0) == 0.0
    assert 10 < smallest_detectable(1.0, 1.0) < 100  # one degree of freedom
    with pytest.raises(ValueError, match="power is 80"):
        smallest_detectable(1.0, 2.0, power=80)
    with pytest.raises(ValueError, match=r"power is 0\.01"):
        smallest_detectable(1.0, 2.0, power=0.01)
