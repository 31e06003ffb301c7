"""Kappa and correlations are those of scikit-learn and SciPy; their intervals are over questions, also at the ends."""

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import cohen_kappa_score

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.kappa import cohens_kappa, correlation

RNG = np.random.default_rng(3)
FIRST = RNG.integers(0, 4, 60)
SECOND = np.where(RNG.random(60) < 0.6, FIRST, RNG.integers(0, 4, 60))


def test_kappa_is_that_of_scikit_learn_for_any_categories():
    assert cohens_kappa(FIRST, SECOND).value == pytest.approx(cohen_kappa_score(FIRST, SECOND))
    words = np.array(["aligned", "misaligned", "refusal", "failed"])
    assert cohens_kappa(words[FIRST], words[SECOND]).value == pytest.approx(cohen_kappa_score(FIRST, SECOND))
    assert cohens_kappa([1, 1, 0, 0], [0, 0, 1, 1]).value == -1.0


def test_its_interval_is_wider_where_questions_decide_and_has_a_width_at_one():
    alone = cohens_kappa(FIRST, SECOND)
    assert alone.low < alone.value < alone.high
    agree = np.repeat(np.arange(12) % 2 == 0, 5)  # wholly right or wholly wrong on a question
    flags = np.arange(60) % 2 == 0
    together = cohens_kappa(flags, flags == agree, questions=np.repeat(np.arange(12), 5))
    apart = cohens_kappa(flags, flags == agree)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    perfect = cohens_kappa(flags, flags)
    assert perfect.value == perfect.high == 1.0
    assert 0.8 < perfect.low < 0.95


def test_there_is_no_kappa_where_there_is_nothing_to_agree_on():
    same = cohens_kappa([False] * 9, [False] * 9)
    assert same.is_missing
    assert "one category" in same.method
    for first, second in (([], []), ([1, 0], [1]), ([[1]], [[1]]), ([1, None], [1, 0])):
        with pytest.raises(PersonaProbeError, match="kappa"):
            cohens_kappa(first, second)


def test_correlations_are_those_of_scipy():
    x = RNG.normal(size=50)
    y = np.round(x + RNG.normal(size=50), 1)
    assert correlation(x, y).value == pytest.approx(pearsonr(x, y).statistic)
    assert correlation(x, y, ranks=True).value == pytest.approx(spearmanr(x, y).statistic)
    scipy = pearsonr(x, y).confidence_interval()
    ours = correlation(x, y)
    assert (ours.low, ours.high) == (pytest.approx(scipy.low, abs=0.1), pytest.approx(scipy.high, abs=0.1))


def test_a_correlation_without_spread_or_rows_says_so():
    assert "equal" in correlation([1, 1, 1, 1], [1, 2, 3, 4]).method
    assert "needs" in correlation([1, 2, 3], [1, 2, 3]).method
    line = correlation([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    assert (line.value, line.low, line.high) == (1.0, 1.0, 1.0)
    one = correlation([1, 2, 3, 5], [1, 3, 2, 4], questions=["a"] * 4)
    assert math.isnan(one.low)
    with pytest.raises(PersonaProbeError, match="2 and 3 scores"):
        correlation([1, 2], [1, 2, 3])
