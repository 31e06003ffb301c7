import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from persona_probe.statistics.auroc import auroc, auroc_estimate
from persona_probe.statistics.score_intervals import auroc_score_interval


@pytest.mark.parametrize("ties", [False, True])
def test_equals_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(200) < 0.3
    scores = rng.normal(size=200) + labels
    scores = np.round(scores) if ties else scores
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


@pytest.mark.parametrize(("labels", "name"), [([True, True], "True"), ([0, 0], "False")])
def test_one_class_alone_is_refused(labels: list[int], name: str) -> None:
    with pytest.raises(ValueError, match=f"all 2 labels are {name}"):
        auroc([0.1, 0.2], labels)


def test_unusable_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        auroc([0.1, math.nan], [True, False])
    with pytest.raises(ValueError, match="scores has 3 rows and labels 2"):
        auroc_estimate([1, 2, 3], [True, False])


def jackknife_by_hand(scores: list[float], labels: list[int], groups: list[int]) -> list[float]:
    """Leave each group out, with scikit-learn doing the counting."""
    rows = [np.array(column) for column in (scores, labels, groups)]
    return [roc_auc_score(rows[1][rows[2] != g], rows[0][rows[2] != g]) for g in dict.fromkeys(groups)]


def test_jackknife_leaves_out_what_it_says() -> None:
    rng = np.random.default_rng(5)
    # groups of one class as well as of both
    groups = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5]
    labels = [1, 0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 0, 0, 1]
    scores = np.round(rng.normal(size=16) + 0.7 * np.array(labels), 1).tolist()
    held_out = np.array(jackknife_by_hand(scores, labels, groups))
    value = roc_auc_score(labels, scores)
    error = math.sqrt(5 / 6 * ((held_out - held_out.mean()) ** 2).sum()) / (value * (1 - value))
    estimate = auroc_estimate(scores, labels, groups=groups)
    assert estimate.method == "jackknife t on the logit scale over 6 groups"
    half_by_level = 2.5705818 * error  # t quantile with 5 degrees of freedom
    middle = math.log(value / (1 - value))
    expected = [1 / (1 + math.exp(-(middle + side * half_by_level))) for side in (-1, 1)]
    assert [estimate.low, estimate.high] == pytest.approx(expected)


def test_perfect_separation_gets_a_bound_from_groups_not_rows() -> None:
    labels = np.tile([True, False], 120)
    scores = labels + 0.1 * np.random.default_rng(0).random(240)
    over_rows = auroc_estimate(scores, labels)
    over_groups = auroc_estimate(scores, labels, groups=np.repeat(np.arange(12), 20))
    assert over_rows.value == over_groups.value == over_groups.high == 1.0
    assert 0.99 > over_rows.low > over_groups.low > 0.7
    assert over_groups.method == "Newcombe score, effective n = 12 positive and 12 negative groups"
    upside_down = auroc_estimate(-scores, labels, groups=np.repeat(np.arange(12), 20))
    assert [upside_down.low, upside_down.high] == pytest.approx([0.0, 1 - over_groups.low])


def test_one_group_that_errs_does_not_narrow_a_perfect_score() -> None:
    labels = np.tile([True, False], 120)
    groups = np.repeat(np.arange(12), 20)
    scores = labels.astype(float)
    perfect = auroc_estimate(scores, labels, groups=groups)
    scores[0] = -1.0
    flawed = auroc_estimate(scores, labels, groups=groups)
    assert flawed.value < 1.0
    assert flawed.low <= perfect.low


def test_few_groups_are_counted_as_single_observations() -> None:
    rng = np.random.default_rng(0)
    labels = np.tile([True, False], 30)
    scores = labels + rng.normal(size=60)
    rows = auroc_estimate(scores, labels)
    few = auroc_estimate(scores, labels, groups=np.repeat([1, 2, 3], 20))
    assert rows.method == "Newcombe score over rows (30 positive, 30 negative)"
    assert few.method == "Newcombe score, effective n = 3 positive and 3 negative groups"
    assert few.low < rows.low < rows.high < few.high


def test_a_class_within_one_group_is_one_observation() -> None:
    labels = np.arange(60) < 10
    scores = labels + np.random.default_rng(0).normal(size=60)
    found = auroc_estimate(scores, labels, groups=np.repeat(np.arange(6), 10))
    assert found.method == "Newcombe score, effective n = 1 positive and 5 negative groups"


def stratified() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels, groups and strata; groups lie across strata."""
    rng = np.random.default_rng(1)
    labels, strata, groups = rng.random(90) < 0.4, np.arange(90) % 3, np.arange(90) // 9
    return np.round(rng.normal(size=90) + labels + 5 * strata, 1), labels, groups, strata


def pairs_by_hand(scores: np.ndarray, labels: np.ndarray, strata: np.ndarray) -> float:
    won = [
        (one > other) + 0.5 * (one == other)
        for stratum in set(strata)
        for one in scores[labels & (strata == stratum)]
        for other in scores[~labels & (strata == stratum)]
    ]
    return float(np.mean(won))


def test_only_pairs_within_a_stratum_are_compared() -> None:
    scores, labels, groups, strata = stratified()
    assert auroc(scores, labels, strata=strata) == pytest.approx(pairs_by_hand(scores, labels, strata))
    found = auroc_estimate(scores, labels, groups=groups, strata=strata)
    assert found.value == pytest.approx(pairs_by_hand(scores, labels, strata))
    assert found.method == "jackknife t on the logit scale over 10 groups, pairs within 3 folds"
    kept = [groups != group for group in range(10)]
    held_out = np.array([pairs_by_hand(scores[rows], labels[rows], strata[rows]) for rows in kept])
    error = math.sqrt(0.9 * ((held_out - held_out.mean()) ** 2).sum()) / (found.value * (1 - found.value))
    assert math.log(found.high / (1 - found.high)) - math.log(found.value / (1 - found.value)) == pytest.approx(
        2.2621572 * error  # t quantile with 9 degrees of freedom
    )
    with pytest.raises(ValueError, match="no stratum holds rows of both classes"):
        auroc(scores, labels, strata=labels)


def test_inflation_multiplies_the_variance_and_says_so() -> None:
    scores, labels, groups, strata = stratified()
    logits = []
    for inflation in (1.0, 4.0):
        found = auroc_estimate(scores, labels, groups=groups, strata=strata, inflation=inflation)
        logits.append(math.log(found.high / (1 - found.high)) - math.log(found.low / (1 - found.low)))
    assert logits[1] == pytest.approx(2 * logits[0])
    assert "variance x 4.00 for shared training rows" in found.method
    with pytest.raises(ValueError, match=r"inflation is 0\.5"):
        auroc_estimate(scores, labels, inflation=0.5)


def test_seeds_make_the_interval_two_way() -> None:
    rng = np.random.default_rng(2)
    groups, seeds = (axis.ravel() for axis in np.indices((12, 3, 10))[:2])
    labels = rng.random(360) < 0.5
    shift = np.array([0.0, 1.0, 2.5])[seeds]
    scores = rng.normal(size=360) + shift * labels
    one_way = auroc_estimate(scores, labels, groups=groups)
    two_way = auroc_estimate(scores, labels, groups=groups, seeds=seeds)
    assert two_way.method == "two-way t on the logit scale over 12 groups and 3 seeds"
    assert two_way.value == one_way.value
    assert two_way.high - two_way.low > 2 * (one_way.high - one_way.low)
    with pytest.raises(ValueError, match="seeds are given without groups"):
        auroc_estimate(scores, labels, seeds=seeds)


def test_a_constant_score_keeps_its_interval() -> None:
    estimate = auroc_estimate(np.ones(40), np.tile([True, False], 20), groups=np.repeat(np.arange(10), 4))
    assert estimate.value == 0.5
    assert estimate.low < 0.35
    assert estimate.high > 0.65


def test_score_interval_solves_its_own_equation() -> None:
    low, high = auroc_score_interval(0.8, 20, 30, 0.95)
    for end in (low, high):
        pairs = (1 - end) / (2 - end) + end / (1 + end)
        error = math.sqrt(end * (1 - end) * (1 + 24 * pairs) / 600)
        assert abs(0.8 - end) / error == pytest.approx(1.959964, rel=1e-5)
    assert low < 0.8 < high


def test_score_interval_mirrors() -> None:
    low, high = auroc_score_interval(0.9, 15, 15, 0.95)
    assert auroc_score_interval(0.1, 15, 15, 0.95) == pytest.approx((1 - high, 1 - low))


def test_few_groups_that_fail_do_not_make_a_score_near_one_look_certain() -> None:
    """Separation differs between groups by 50 %; AUROC 0.99: without a floor, 84-87 % of intervals hold the truth."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(24), 20), np.tile(np.repeat([True, False], 10), 24)
    separation, true = 7.0, 0.98983  # Phi(7 / sqrt(2 * (1 + 0.7**2) + 0.5 * (7 * 0.5)**2))
    covered = 0
    for _ in range(200):
        own = separation * (1 + 0.5 * rng.normal(size=24))
        scores = 0.7 * rng.normal(size=24)[groups] + np.where(labels, 0.5, -0.5) * own[groups] + rng.normal(size=480)
        found = auroc_estimate(scores, labels, groups=groups)
        covered += found.low <= true <= found.high
    assert covered >= 184


def test_even_groups_away_from_the_ends_keep_their_interval() -> None:
    """The floor is for few failing groups: half of the width stays what the jackknife says."""
    rng = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(24), 20), np.tile(np.repeat([True, False], 10), 24)
    scores = rng.normal(size=480) + labels
    found = auroc_estimate(scores, labels, groups=groups)
    held_out = np.array([roc_auc_score(labels[groups != g], scores[groups != g]) for g in range(24)])
    error = math.sqrt(23 / 24 * ((held_out - held_out.mean()) ** 2).sum())
    assert found.high - found.low == pytest.approx(2 * 2.069 * error, rel=0.05)
