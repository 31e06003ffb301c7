"""Does the interval of a specificity hold the truth, where a logarithm or a bootstrap would not?"""

import math

import numpy as np
import numpy.typing as npt
import pytest

from persona_probe.statistics.nulls import matched_random_directions, specificity
from persona_probe.statistics.specificity import specificity_estimate

D, DRAWS, DATA_SETS = 24, 1000, 200
SCALE = np.linspace(3, 0.3, D)
REFERENCE = np.random.default_rng(0).normal(size=(200, D)) * SCALE
RANDOM = matched_random_directions(REFERENCE, DRAWS, 0)
RANDOM_SCALED = (RANDOM / (REFERENCE @ RANDOM.T).std(axis=0, ddof=1)[:, None]).T
SD = REFERENCE[:, 5].std(ddof=1)


def mean_change(shift_sd: float, elsewhere: float) -> npt.NDArray[np.float64]:
    vector = np.zeros(D)
    vector[5], vector[0] = shift_sd * SD, elsewhere
    return vector


def coverage(after_sd: float, control_sd: float, questions: int, seeds: int = 1, seed_sd: float = 0.0) -> float:
    """Share of data sets whose interval holds the true ratio; dialogues share questions (and seeds)."""
    rng = np.random.default_rng(1)
    after, control = mean_change(after_sd, 1.0), mean_change(control_sd, 0.0)
    truth = specificity(after_sd, control_sd, after @ RANDOM_SCALED)
    asked = np.repeat(np.arange(questions), 2 * seeds)
    run = np.tile(np.repeat(np.arange(seeds), 2), questions)

    def drawn(mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        noise = (rng.normal(size=(questions, D)))[asked] + 0.5 * rng.normal(size=(asked.size, D))
        return mean + (noise + seed_sd * rng.normal(size=(seeds, D))[run]) * SCALE

    held = 0
    for _ in range(DATA_SETS):
        moved, benign = drawn(after), drawn(control)
        found = specificity_estimate(
            moved[:, 5] / SD, benign[:, 5] / SD, moved @ RANDOM_SCALED, questions=asked, seeds=run
        )
        held += found.low <= truth <= found.high
    return held / DATA_SETS


@pytest.mark.parametrize(
    ("after", "control", "questions"),
    [
        (3.0, 0.1, 40),  # random directions are the yardstick
        (3.0, 1.5, 40),  # the control is
        (3.0, 0.6, 40),  # both are about as large
        (2.0, 2.0, 40),  # a direction that only tracks fine-tuning: truth is zero
        (0.5, 0.0, 20),  # weak
        (3.0, 0.1, 8),  # few questions
    ],
)
def test_the_interval_holds_the_truth(after: float, control: float, questions: int) -> None:
    assert coverage(after, control, questions) >= 0.89


@pytest.mark.parametrize("control", [0.1, 1.5])
def test_it_does_over_three_seeds_too(control: float) -> None:
    assert coverage(3.0, control, 20, seeds=3, seed_sd=0.3) >= 0.89


def test_the_value_is_the_specificity() -> None:
    rng = np.random.default_rng(0)
    after, control, random = rng.normal(4, 1, 50), rng.normal(0.1, 1, 50), rng.normal(size=(50, 300))
    found = specificity_estimate(after, control, random)
    assert found.value == pytest.approx(specificity(after.mean(), control.mean(), random.mean(axis=0)))
    assert 1 < found.low < found.value < found.high
    assert found.method == "Fieller, t (questions: 50, seeds: 1)"


def test_a_shift_like_the_controls_holds_zero() -> None:
    rng = np.random.default_rng(0)
    both = rng.normal(3, 0.2, 40)
    found = specificity_estimate(both + 0.1 * rng.normal(size=40), both, 0.05 * rng.normal(size=(40, 100)))
    assert found.low == 0.0
    assert found.high < 0.1


def test_a_yardstick_that_may_be_zero_has_no_upper_end() -> None:
    rng = np.random.default_rng(0)
    found = specificity_estimate(rng.normal(5, 1, 6), rng.normal(0, 9, 6), 0.001 * rng.normal(size=(6, 50)))
    assert math.isinf(found.high)


def test_one_question_has_no_interval() -> None:
    found = specificity_estimate([3.0, 3.1], [0.1, 0.2], [[0.1], [0.1]], questions=["q", "q"])
    assert math.isnan(found.low)
    assert found.value > 0


def test_changes_without_any_spread_have_an_interval_of_no_width() -> None:
    found = specificity_estimate([4.0] * 5, [1.0] * 5, [[0.5]] * 5)
    assert (found.low, found.value, found.high) == (3.0, 3.0, 3.0)


def test_dialogues_must_match() -> None:
    with pytest.raises(ValueError, match="after has 2 rows, control 1 and random 2"):
        specificity_estimate([1.0, 2.0], [1.0], [[0.1], [0.2]])
    with pytest.raises(ValueError, match="nothing to compare"):
        specificity_estimate([1.0, 2.0], [0.0, 0.0], [[0.0], [0.0]])
