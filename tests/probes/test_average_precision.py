import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from persona_probe.statistics.average_precision import average_precision, average_precision_estimate


@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn(ties):
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = rng.normal(size=200) + labels
    scores = np.round(scores) if ties else scores
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores))


def test_the_interval_leaves_out_one_group_at_a_time_and_covers():
    rng = np.random.default_rng(1)
    inside = 0
    groups = np.repeat(np.arange(12), 20)
    labels = rng.random((200, 240)) < 0.3
    truth = average_precision(*_drawn(rng, np.tile(labels.ravel(), 4)))
    for own in labels:
        scores, own = _drawn(rng, own)
        found = average_precision_estimate(scores, own, groups=groups)
        assert found.method == "jackknife t on the logit scale over 12 groups"
        inside += found.low <= truth <= found.high
    assert 0.88 < inside / 200 <= 1.0


def _drawn(rng, labels):
    return rng.normal(size=len(labels)) + 1.5 * labels, labels


def test_a_perfect_ranking_gets_a_bound_from_groups_not_rows():
    labels = np.tile([True, False], 120)
    scores = labels + 0.1 * np.random.default_rng(0).random(240)
    over_rows = average_precision_estimate(scores, labels)
    over_groups = average_precision_estimate(scores, labels, groups=np.repeat(np.arange(12), 20))
    assert over_rows.value == over_groups.value == 1.0 == over_groups.high
    assert over_groups.low < over_rows.low
    assert over_groups.method == "Wilson, effective n = 12 groups with a positive row"


def test_few_groups_are_the_trials():
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.5
    found = average_precision_estimate(rng.normal(size=60), labels, groups=np.arange(60) % 3)
    assert found.method == "Wilson, effective n = 3 groups with a positive row"
    with pytest.raises(ValueError, match="all 3 labels are True"):
        average_precision([1, 2, 3], [1, 1, 1])
    with pytest.raises(ValueError, match="scores has 3 rows and labels 2"):
        average_precision([1, 2, 3], [1, 0])


def test_strata_are_brought_to_one_scale():
    rng = np.random.default_rng(0)
    strata = np.arange(300) % 3
    labels = rng.random(300) < np.array([0.2, 0.5, 0.7])[strata]
    assert average_precision(labels - 10.0 * strata, labels, strata=strata) == 1.0, "perfect in each"
    assert average_precision(labels - 10.0 * strata, labels) < 0.7
    scores = rng.normal(size=300) + labels
    assert average_precision(scores, labels, strata=np.zeros(300)) == pytest.approx(average_precision(scores, labels))
    moved = average_precision(scores - 10.0 * strata, labels, strata=strata)
    assert moved == pytest.approx(average_precision(scores, labels, strata=strata))
    noise = [average_precision(rng.normal(size=300) - strata, labels, strata=strata) for _ in range(300)]
    assert np.mean(noise) - labels.mean() == pytest.approx(0, abs=0.02)
    with pytest.raises(ValueError, match="no stratum holds rows of both classes"):
        average_precision(scores, labels, strata=labels)
