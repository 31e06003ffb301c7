"""Does a 95 % interval hold the truth about 95 % of the time, where questions and seeds both differ?"""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit

from persona_probe.statistics.auroc import auroc_estimate
from persona_probe.statistics.rates import mean_estimate, ratio_estimate

QUESTIONS, SEEDS, ROWS = 40, 3, 4
DATA_SETS = 200


def crossed(rng: np.random.Generator, centre: float, question_sd: float, seed_sd: float) -> npt.NDArray[np.float64]:
    """``(question, seed, row)`` log odds with crossed random effects."""
    by_question = question_sd * rng.standard_normal((QUESTIONS, 1, 1))
    by_seed = seed_sd * rng.standard_normal((1, SEEDS, 1))
    return np.broadcast_to(centre + by_question + by_seed, (QUESTIONS, SEEDS, ROWS))


@pytest.mark.parametrize(
    ("centre", "question_sd", "seed_sd"),
    [(-0.5, 1.0, 0.0), (-0.5, 1.0, 0.3), (-0.5, 1.0, 1.0), (-3.5, 1.0, 1.0)],
)
def test_ratio_interval_covers_where_counting_rows_does_not(centre: float, question_sd: float, seed_sd: float) -> None:
    rng = np.random.default_rng(20240)
    questions, seeds, _ = (axis.ravel() for axis in np.indices((QUESTIONS, SEEDS, ROWS)))
    truth = float(expit(centre + math.hypot(question_sd, seed_sd) * rng.standard_normal(400_000)).mean())
    ours = naive = 0
    for _ in range(DATA_SETS):
        chance = expit(crossed(rng, centre, question_sd, seed_sd)).ravel()
        coherent = rng.random(chance.size) < 0.8
        bad = coherent & (rng.random(chance.size) < chance)
        estimate = ratio_estimate(bad, coherent, questions=questions, seeds=seeds)
        ours += estimate.low <= truth <= estimate.high
        half = 1.96 * math.sqrt(estimate.value * (1 - estimate.value) / estimate.n)
        naive += abs(estimate.value - truth) <= half
    assert ours / DATA_SETS >= 0.90
    assert naive / DATA_SETS <= 0.85


def test_mean_interval_covers_with_three_seeds() -> None:
    rng = np.random.default_rng(7)
    questions, seeds, _ = (axis.ravel() for axis in np.indices((QUESTIONS, SEEDS, ROWS)))
    covered = 0
    for _ in range(DATA_SETS):
        values = crossed(rng, 2.0, 1.0, 0.7) + rng.standard_normal((QUESTIONS, SEEDS, ROWS))
        estimate = mean_estimate(values.ravel(), questions=questions, seeds=seeds)
        covered += estimate.low <= 2.0 <= estimate.high
    assert covered / DATA_SETS >= 0.90


def test_auroc_interval_covers_over_groups_where_rows_do_not() -> None:
    rng = np.random.default_rng(3)
    groups, per_class = 12, 10
    # score differences across groups: normal, mean 1, variance 2 (noise) + 2 (group shifts) + 1/2 (separations)
    truth = 0.5 * (1 + math.erf(1 / math.sqrt(2 * 4.5)))
    labels = np.repeat([True, False], groups * per_class)
    names = np.tile(np.repeat(np.arange(groups), per_class), 2)
    ours = naive = 0
    for _ in range(DATA_SETS):
        shift = rng.standard_normal(groups)
        separation = 1 + rng.standard_normal(groups)
        scores = shift + np.where(labels, 0.5, -0.5).reshape(-1, groups, per_class).swapaxes(1, 2) * separation
        scores = scores.swapaxes(1, 2).ravel() + rng.standard_normal(labels.size)
        over_groups, over_rows = auroc_estimate(scores, labels, groups=names), auroc_estimate(scores, labels)
        ours += over_groups.low <= truth <= over_groups.high
        naive += over_rows.low <= truth <= over_rows.high
    assert ours / DATA_SETS >= 0.90
    assert naive / DATA_SETS <= 0.85
