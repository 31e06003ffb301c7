import numpy as np
import pytest

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.rate_differences import Counts, ratio_difference
from persona_probe.statistics.rate_power import clustering, power_of_change, smallest_visible_rate


@pytest.mark.parametrize("sizes", [[50] * 8, [5] * 8, [3] * 4, [7, 3, 9, 4, 5, 6, 8]])
@pytest.mark.parametrize(("before", "after"), [(0.0, 0.2), (0.3, 0.6)])
def test_power_is_how_often_the_interval_of_the_change_leaves_out_zero(sizes, before, after):
    """The simulated evaluations, each put through the function that computes the intervals."""
    sizes, chance, detected = np.array(sizes), np.random.default_rng(5), []
    asked = np.repeat(np.arange(sizes.size), sizes)
    for _ in range(150):
        sides = []
        for rate in (before, after):
            rates = chance.beta(rate * 4, (1 - rate) * 4, sizes.size) if rate else np.zeros(sizes.size)
            events = chance.random(asked.size) < rates[asked]
            sides.append(Counts(events, np.ones(asked.size, dtype=bool), asked))
        change = ratio_difference(*sides)
        detected.append(change.low > 0 or change.high < 0)
    power = power_of_change(before, after, sizes, sizes, correlation=0.2)
    assert power == pytest.approx(np.mean(detected), abs=0.13)  # three standard errors of 150 evaluations


def test_eight_questions_with_fifty_answers_do_not_see_one_per_cent():
    asked = [50] * 8
    smallest = smallest_visible_rate(0.0, asked, asked, correlation=0.1)
    assert 0.05 < smallest < 0.15
    assert power_of_change(0.0, 0.01, asked, asked, correlation=0.1) < 0.02
    assert power_of_change(0.0, smallest, asked, asked, correlation=0.1) >= 0.8


def test_a_change_from_nothing_to_nothing_is_seen_in_at_most_one_of_twenty():
    for questions in (4, 8, 24):
        asked = [10] * questions
        assert power_of_change(0.2, 0.2, asked, asked, correlation=0.2) < 0.08
        assert power_of_change(0.0, 0.0, asked, asked, correlation=0.2) == 0.0


def test_one_question_sees_nothing():
    assert np.isnan(smallest_visible_rate(0.0, [1000], [1000], correlation=0.1))


def test_clustering_is_the_correlation_of_answers_to_one_question():
    chance = np.random.default_rng(0)
    questions = np.repeat(np.arange(400), 20)
    rates = chance.beta(0.3 * 4, 0.7 * 4, 400)  # a correlation of 1 / (1 + 4)
    assert clustering(chance.random(8000) < rates[questions], questions) == pytest.approx(0.2, abs=0.04)
    assert clustering(chance.random(8000) < 0.3, questions) < 0.02
    assert np.isnan(clustering(np.zeros(40, dtype=bool), np.repeat(np.arange(4), 10)))
    assert np.isnan(clustering(np.arange(4) < 2, np.arange(4)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_after": [5]}, "2 questions and n_after 1"),
        ({"n_after": [5, 0]}, "n_after must be a list of counts of at least 1"),
        ({"before": 1.2}, "before is 1.2"),
        ({"correlation": -0.1}, "correlation is -0.1"),
    ],
)
def test_what_cannot_be_is_refused(change, said):
    given = {"before": 0.0, "after": 0.5, "n_before": [5, 5], "n_after": [5, 5], "correlation": 0.1} | change
    with pytest.raises(PersonaProbeError, match=said):
        power_of_change(**given)
    with pytest.raises(PersonaProbeError, match="power is"):
        smallest_visible_rate(0.0, [5, 5], [5, 5], correlation=0.1, power=0.01)
