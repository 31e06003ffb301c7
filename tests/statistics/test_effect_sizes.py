import math

import numpy as np
import pytest
from scipy import stats

from persona_probe.statistics.clustered_variance import clustered_variance
from persona_probe.statistics.effect_sizes import Yardstick, cohens_d, cosine, paired_effect


def test_cohens_d_by_hand() -> None:
    # variances 1 and 4, one with 3 rows and one with 5: pooled (2 * 1 + 4 * 2.5) / 6
    assert cohens_d([4, 5, 6], [0, 1, 2, 3, 4]) == pytest.approx(3 / math.sqrt((2 * 1 + 4 * 2.5) / 6))


def test_cohens_d_finds_a_planted_effect_and_its_sign() -> None:
    rng = np.random.default_rng(0)
    above, below = rng.normal(0.8, 1, 5000), rng.normal(0, 1, 5000)
    assert cohens_d(above, below) == pytest.approx(0.8, abs=0.06)
    assert cohens_d(below, above) == -cohens_d(above, below)


def test_cohens_d_refuses_what_has_no_spread() -> None:
    with pytest.raises(ValueError, match="without any spread"):
        cohens_d([0.1] * 7, [0.3] * 7)
    with pytest.raises(ValueError, match="negative has 1 row"):
        cohens_d([1.0, 2.0], [1.0])


def test_paired_effect_is_the_paired_t_interval() -> None:
    rng = np.random.default_rng(1)
    before = rng.normal(size=30) * 5
    after = before + 1 + rng.normal(size=30)
    mean, d_z = paired_effect(before, after)
    interval = stats.ttest_rel(after, before).confidence_interval()
    assert (mean.low, mean.high) == pytest.approx((interval.low, interval.high))
    assert d_z.value == pytest.approx(stats.ttest_rel(after, before).statistic / math.sqrt(30))
    noncentral = [stats.nct.cdf(d_z.value * math.sqrt(30), 29, end * math.sqrt(30)) for end in (d_z.low, d_z.high)]
    assert noncentral == pytest.approx([0.975, 0.025], abs=1e-6)
    assert mean.value > 0


def test_paired_effect_counts_questions_not_rows() -> None:
    change = np.repeat(np.random.default_rng(2).normal(size=10), 20)
    by_row, rows_d = paired_effect(np.zeros(200), change)
    by_question, d_z = paired_effect(np.zeros(200), change, questions=np.repeat(np.arange(10), 20))
    assert by_question.high - by_question.low > 3 * (by_row.high - by_row.low)
    assert d_z.high - d_z.low > 3 * (rows_d.high - rows_d.low)
    assert d_z.n == 10


def test_the_same_change_everywhere_has_no_d_z() -> None:
    before = np.array([0.1, 0.2, 0.3, 0.7])
    mean, d_z = paired_effect(before, before + 0.3)
    assert mean.value == pytest.approx(0.3)
    assert d_z.is_missing


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="before has 2 rows and after 3"):
        paired_effect([1, 2], [1, 2, 3])


def test_cosine_layer_by_layer() -> None:
    a = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    b = np.array([[0.0, 3.0], [5.0, 5.0], [0.0, -1.0]])
    np.testing.assert_allclose(cosine(a, b), [0.0, 1.0, -1.0], atol=1e-12)


def test_cosine_names_the_layer_that_is_zero() -> None:
    a = np.ones((3, 4))
    b = a.copy()
    b[1] = 0
    with pytest.raises(ValueError, match="b has length zero at layer 1"):
        cosine(a, b)


def test_cosine_needs_matching_directions() -> None:
    with pytest.raises(ValueError, match="directions must match"):
        cosine(np.ones((3, 4)), np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"give 2 axes: \(layer, d_model\)"):
        cosine(np.ones(4), np.ones(4))


@pytest.mark.parametrize(("rows", "size"), [(50, 3.0), (200, 3.0), (200, 0.0)])
def test_a_shift_in_sd_contains_the_error_of_the_sd(rows: int, size: float) -> None:
    rng = np.random.default_rng(rows)
    covered = fixed = 0
    for _ in range(300):
        yardstick = Yardstick.of(rng.normal(size=rows))
        change = size + 0.4 * rng.normal(size=30)
        spread = clustered_variance((change - change.mean()) / 30, np.arange(30), np.zeros(30, dtype=np.intp))
        _, low, high = yardstick.standardised(float(change.mean()), spread)
        covered += low <= size <= high
        half = spread.t_quantile(0.95) * math.sqrt(spread.variance) / yardstick.sd
        fixed += abs(change.mean() / yardstick.sd - size) <= half
    assert covered / 300 >= 0.91
    if size:
        assert fixed / 300 <= 0.8  # what an interval misses that takes the SD as known


def test_the_error_of_an_sd_is_over_questions() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    copied = Yardstick.of(values, np.repeat(np.arange(20), 10))
    assert copied.relative_variance == pytest.approx(Yardstick.of(values[::10]).relative_variance, rel=0.15)
    assert copied.degrees_of_freedom == 19
    with pytest.raises(ValueError, match="values has 1 row"):
        Yardstick.of([1.0])


def test_the_interval_of_a_huge_d_z_goes_on_where_the_noncentral_t_ends() -> None:
    spread = np.linspace(-1, 1, 24)
    ratios = []
    for shift in (12.0, 13.0, 1e6):  # t of about 98, 107 and far beyond
        d_z = paired_effect(np.zeros(24), shift + spread)[1]
        ratios.append((d_z.low / d_z.value, d_z.high / d_z.value))
    assert ratios[0] == pytest.approx(ratios[1], rel=2e-3)
    assert ratios[1] == pytest.approx(ratios[2])
