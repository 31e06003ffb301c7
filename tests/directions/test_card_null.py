"""The null on a direction's card exchanges labels of whole questions."""

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.directions.finders.mean_difference import mean_difference_weights
from persona_probe.directions.finders.poles import Poles
from tests.figure_notes import note


def poles(rng, questions=12, rows=6, clustered=0.0, shared=0.0, effect=0.0, width=16, in_both=True):
    """Activations that differ by ``effect`` along the first dimension; the rest is shared by rows of a question."""
    question = np.repeat(np.arange(questions), rows)
    base = shared * rng.normal(size=(2 * questions, width))
    sides = []
    for side in (0, 1):
        named = question if in_both or not side else question + questions
        values = base[named] + (clustered * rng.normal(size=(2 * questions, width)))[named]
        values = values + rng.normal(size=values.shape)
        values[:, 0] += effect * (side == 0)
        table = pd.DataFrame({"id": [f"{side}-{i}" for i in range(len(named))], "question": [f"q{q}" for q in named]})
        sides.append(pp.Activations(values[:, None].astype(np.float32), table, (0,)))
    return sides


def longer(rng, **settings):
    checks = pp.find_direction(*poles(rng, **settings), repeats=1).card["checks"]
    return checks["shuffled_norm"][0] < 1


@pytest.mark.parametrize("in_both", [True, False])
def test_clusters_do_not_pass_for_a_direction(in_both):
    """With single rows shuffled, nearly every one of these would be longer than 97.5 %."""
    rng = np.random.default_rng(0)
    assert sum(longer(rng, clustered=0.7, in_both=in_both) for _ in range(60)) <= 6


def test_questions_that_both_poles_share_do_not_hide_a_difference():
    """With single rows shuffled, what questions share would be most of the null, and none would be longer."""
    rng = np.random.default_rng(0)
    assert sum(longer(rng, shared=2.0, effect=1.5) for _ in range(10)) == 10


def test_few_questions_have_a_p_but_no_quantile():
    rng = np.random.default_rng(0)
    found = pp.find_direction(*poles(rng, questions=5, effect=8.0), repeats=2)
    checks = found.card["checks"]
    assert checks["shuffled_norm"] is checks["shuffled_cosine"] is None
    assert checks["shuffled_p"] == [2 / 32]
    assert checks["shuffled"].endswith("the labels of 5 can be exchanged in 32 ways only")
    assert found.to_frame()["shuffled_norm"].isna().all()
    assert "too few questions" in note(found.plot())


def test_few_draws_have_a_p_but_no_quantile():
    rng = np.random.default_rng(0)
    sides = poles(rng, effect=8.0)
    checks = pp.find_direction(*sides, "lda").card["checks"]
    assert checks["shuffled_norm"] is None
    assert checks["shuffled_p"] == pytest.approx([1 / 6])
    assert "5 exchanges" in checks["shuffled"]
    assert "repeats=39" in checks["shuffled"]
    assert pp.find_direction(*sides, "lda", repeats=39).card["checks"]["shuffled_norm"][0] < 1


def test_exchanged_poles_have_the_lengths_that_the_matrix_product_says():
    rng = np.random.default_rng(0)
    sides = poles(rng, questions=3, rows=2, clustered=1.0, effect=1.0)
    sides[0] = sides[0].where([True] * 5 + [False])  # different numbers of rows
    both = Poles(*sides)
    of_positive, of_negative = mean_difference_weights(both)
    weights = np.concatenate([of_positive, -of_negative])
    drawn = both.exchange.draws(100, rng)
    means = both.exchange.means(both.stacked()[0][:, 0], weights)
    possible = np.linalg.norm(both.exchange.coefficients(drawn, weights) @ means, axis=1)
    for _ in range(20):
        found = both.shuffled(rng, centred=False)
        assert np.abs(possible - np.linalg.norm(found.difference()[0])).min() < 1e-5
        assert found.positive.table.equals(both.positive.table)


def test_dialogues_are_exchanged_where_there_is_one_question():
    rng = np.random.default_rng(0)
    sides = [pp.Activations(side.values, side.table.assign(question="the same"), side.layers) for side in poles(rng)]
    assert "of 144 dialogues" in pp.find_direction(*sides, repeats=1).card["checks"]["shuffled"]


@pytest.mark.parametrize("shared", [True, False])
def test_six_hundred_dialogues_in_each_pole_have_a_card(shared: bool) -> None:
    rng = np.random.default_rng(0)
    sides = []
    for pole in ("a", "b"):
        names = [f"q{row}" if shared else f"{pole}{row}" for row in range(600)]
        table = pd.DataFrame({"id": [f"{pole}{row}" for row in range(600)], "question": names})
        sides.append(pp.Activations(rng.normal(size=(600, 1, 8)), table, layers=(0,)))
    checks = pp.find_direction(*sides, repeats=1).card["checks"]
    assert 0.02 < checks["shuffled_p"][0] < 0.98
    assert 0.1 < checks["shuffled_cosine"][0] < 1.0


def test_poles_of_different_sizes_have_a_null_direction_that_is_not_rounding() -> None:
    rng = np.random.default_rng(0)
    sides = []
    for rows in (3, 4):  # of each question
        asked = np.repeat(np.arange(12), rows)
        table = pd.DataFrame({"id": range(asked.size), "question": asked})
        sides.append(pp.Activations(rng.normal(size=(asked.size, 1, 32)), table, layers=(0,)))
    assert pp.find_direction(*sides, repeats=1).card["checks"]["shuffled_cosine"][0] > 0.15
    one, other = (pp.find_direction(*sides, "shuffled-labels", seed=seed).at(0) for seed in (0, 1))
    assert abs(one @ other) / np.linalg.norm(one) / np.linalg.norm(other) < 0.6


def test_one_question_against_many_is_no_reason_to_exchange_single_rows() -> None:
    rng, small = np.random.default_rng(0), 0
    for _ in range(20):
        sides = []
        for questions in (12, 1):
            asked = np.repeat(np.arange(questions), 40 // questions + 1)
            values = rng.normal(size=(questions, 1, 8))[asked] + 0.2 * rng.normal(size=(asked.size, 1, 8))
            table = pd.DataFrame({"id": range(asked.size), "question": asked})
            sides.append(pp.Activations(values, table, layers=(0,)))
        p = pp.find_direction(*sides, repeats=1).card["checks"]["shuffled_p"]
        small += p is not None and p[0] <= 0.05
    assert small <= 3
