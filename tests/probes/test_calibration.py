import numpy as np
import pytest
from scipy.special import expit

import persona_probe as pp
from persona_probe.probes.calibration import calibrate, threshold_at


def test_a_known_curve_is_recovered():
    rng = np.random.default_rng(0)
    scores = 30 + 20 * rng.normal(size=20_000)
    labels = rng.random(20_000) < expit(0.1 * scores - 4)
    found = calibrate(scores, labels)
    assert found.slope == pytest.approx(0.1, rel=0.05)
    assert found.offset == pytest.approx(-4, rel=0.05)


def test_separable_scores_do_not_become_certainties():
    labels = np.arange(20) >= 10
    probability = calibrate(np.where(labels, 1.0, -1.0), labels).probability([-1.0, 1.0])
    np.testing.assert_allclose(probability, [1 / 12, 11 / 12], atol=1e-4)


def test_a_threshold_keeps_the_rate_it_was_asked_for():
    rng = np.random.default_rng(0)
    labels = rng.random(1000) < 0.4
    scores = np.round(rng.normal(size=1000) + 2 * labels, 1)  # with ties
    found = threshold_at(scores, labels, fpr=0.05)
    flagged = scores > found.value
    assert found.negatives == (~labels).sum()
    assert found.fpr.value == flagged[~labels].mean() <= 0.05
    assert found.tpr.value == flagged[labels].mean()
    assert found.fpr.low < found.fpr.value < found.fpr.high
    lower = np.unique(scores)[np.searchsorted(np.unique(scores), found.value) - 1]
    assert (scores >= lower)[~labels].mean() > 0.05, "a lower threshold would exceed the rate"
    assert f"{found.negatives} negatives" in str(found)


def test_a_rate_that_the_negatives_cannot_show_is_refused():
    labels = np.arange(120) >= 99
    with pytest.raises(pp.PersonaProbeError, match="cannot be set on 99 negatives: at least 100 are needed"):
        threshold_at(np.arange(120.0), labels)
    assert threshold_at(np.arange(121.0), np.arange(121) >= 100).fpr.value == 0.01
    with pytest.raises(pp.PersonaProbeError, match=r"fpr is 1\.5"):
        threshold_at(np.arange(120.0), labels, fpr=1.5)
    with pytest.raises(pp.PersonaProbeError, match="those of one layer"):
        calibrate(np.zeros((120, 2)), labels)
    with pytest.raises(pp.PersonaProbeError, match="nothing to calibrate"):
        calibrate(np.zeros(120), labels)
