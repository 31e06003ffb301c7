import itertools

import numpy as np
import pytest

from persona_probe.statistics.run_permutations import run_permutation_p, smallest_run_p


def test_one_test_is_the_rank_among_all_arrangements() -> None:
    rng = np.random.default_rng(0)
    runs = rng.normal(size=(7, 1))
    after, control = runs[:3], runs[3:]

    def t(chosen: tuple[int, ...]) -> float:
        one, other = runs[list(chosen), 0], np.delete(runs[:, 0], chosen)
        pooled = (one.var() * one.size + other.var() * other.size) / 5 * (1 / one.size + 1 / other.size)
        return float((one.mean() - other.mean()) / np.sqrt(pooled))

    arrangements = [t(chosen) for chosen in itertools.combinations(range(7), 3)]
    seen = t((0, 1, 2))
    expected = np.mean([one >= seen if seen > 0 else one <= seen for one in arrangements])
    assert run_permutation_p(after, control)[0] == pytest.approx(expected)


@pytest.mark.parametrize("layers", [1, 30])
def test_exchangeable_runs_are_called_higher_one_time_in_twenty_over_all_layers(layers: int) -> None:
    rng = np.random.default_rng(layers)
    higher = lower = 0
    for _ in range(400):
        spread = np.exp(rng.normal(size=layers))  # runs vary more at some layers
        after, control = (spread * rng.normal(size=(3, layers)) for _ in range(2))
        p, rose = run_permutation_p(after, control), after.mean(axis=0) > control.mean(axis=0)
        higher += bool(np.any((p <= 0.05) & rose))
        lower += bool(np.any((p <= 0.05) & ~rose))
    assert higher / 400 <= 0.08
    assert lower / 400 <= 0.08


def test_runs_that_are_all_higher_reach_the_smallest_p() -> None:
    rng = np.random.default_rng(0)
    control, after = rng.normal(size=(3, 5)), rng.normal(size=(3, 5)) + 20.0
    assert run_permutation_p(after, control) == pytest.approx(np.full(5, smallest_run_p(3, 3)))
    assert run_permutation_p(control, after) == pytest.approx(np.full(5, 0.05))


def test_many_runs_are_arranged_at_random_and_the_seen_arrangement_counts() -> None:
    rng = np.random.default_rng(0)
    after, control = rng.normal(size=(9, 2)) + 10.0, rng.normal(size=(9, 2))
    assert run_permutation_p(after, control, n_permutations=199) == pytest.approx(np.full(2, 1 / 200))
    assert smallest_run_p(9, 9, n_permutations=199) == 1 / 200


def test_one_run_of_each_can_show_nothing() -> None:
    assert smallest_run_p(1, 1) == 0.5
    assert run_permutation_p([[5.0]], [[0.0]])[0] == 0.5
    assert run_permutation_p([[0.0], [0.0]], [[0.0], [0.0]])[0] == 1.0  # nothing differs


def test_sides_must_match() -> None:
    with pytest.raises(ValueError, match="after has 2 tests and control 1"):
        run_permutation_p([[1.0, 2.0]], [[1.0]])
