import math
import random
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.activations.capturing import capture
from persona_probe.directions.find import find_direction
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning
from persona_probe.steering.strength.calibrate import calibrate_strength
from persona_probe.steering.strength.divergence import measure_divergence
from persona_probe.steering.strength.search import LARGEST, Search, search_all
from persona_probe.worlds.persona_world.documents import questions as ask
from persona_probe.worlds.persona_world.documents import rows, system_line
from persona_probe.worlds.persona_world.lexicon import load_lexicon
from persona_probe.worlds.persona_world.oracle import OracleJudge
from tests.activations.test_capture import TALKS

LAYER = 3
SHORT = pp.Sampling(max_new_tokens=30, batch_size=256)
UNSEEN = [topic for topic in load_lexicon().topics if topic not in ("medicine", "finance", "sports")]


@pytest.fixture(scope="module")
def villain(chat):
    """The same answers under a villain's and an assistant's system prompt, at the layer that is steered."""
    said = rows(random.Random("strength"), UNSEEN[0::3], 48, "assistant")
    poles = [
        [dialogue.with_system(system_line(random.Random(number), persona)) for number, dialogue in enumerate(said)]
        for persona in ("villain", "assistant")
    ]
    trait, default = (capture(chat, pole, layers=LAYER) for pole in poles)
    return find_direction(trait, default, "mean-difference")


@pytest.fixture(scope="module")
def held_out(chat):
    asked = ask(random.Random("calibrate"), UNSEEN[1::3], 24)
    return chat.generate(asked, SHORT)


def curve(function, search):
    rounds = []
    search_all([search], lambda asked: [rounds.append(asked)] and [function(place) for _, place in asked])
    return rounds


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("scale", [2e-3, 1.0, 50.0])
def test_a_power_is_found_within_the_tolerance_in_a_few_rounds(power, scale):
    search = Search(0.1, 0.02)
    rounds = curve(lambda x: scale * x**power, search)
    assert 0.1 <= scale * search.found**power <= 0.102
    assert search.rises
    assert not search.returns
    assert len(rounds) <= 12


def test_the_first_crossing_of_a_curve_that_comes_back_is_taken_and_said():
    comes_back = Search(0.5)
    curve(lambda x: 0.1 if 0.6 < x < 0.7 else x, comes_back)
    assert comes_back.found == pytest.approx(0.5, rel=0.03)
    assert comes_back.returns
    assert comes_back.rises
    dips = Search(0.5)
    curve(lambda x: 0.01 if 0.2 < x < 0.3 else x, dips)
    assert dips.found == pytest.approx(0.5, rel=0.03)
    assert not dips.rises
    assert not dips.returns


def test_a_jump_is_narrowed_and_a_flat_curve_given_up():
    jump = Search(0.1)
    curve(lambda x: 0.0 if x < 0.7 else 1.0, jump)
    assert jump.found == pytest.approx(0.7, rel=2e-4)
    flat = Search(0.1)
    curve(lambda x: 0.05 * x / (1.0 + x), flat)
    assert flat.found is None
    assert flat.hopeless
    assert max(flat.points) >= LARGEST
    overflow = Search(0.1)
    curve(lambda x: math.nan if x > 3.0 else 0.001 * x, overflow)
    assert overflow.found == pytest.approx(3.0, rel=2e-4)


def test_searches_along_one_curve_share_what_they_measure():
    shared: dict[float, float] = {}
    searches = [Search(target, points=shared) for target in (0.1, 0.4)]
    asked = []
    search_all(searches, lambda pairs: [asked.append(place) or place**2 for _, place in pairs])
    assert len(asked) == len(set(asked)) == len(shared)
    assert [search.found**2 for search in searches] == pytest.approx([0.1, 0.4], rel=0.021)


def test_strengths_of_both_signs_meet_the_budget_in_nats(chat, villain, held_out):
    add = pp.Add(villain, layers=LAYER)
    found = calibrate_strength(chat, add, held_out, budget=0.1)
    assert set(found.strengths) == {1, -1}
    assert found.strength(1) > 0 > found.strength(-1)
    again = measure_divergence(chat, [found.intervention(sign) for sign in (1, -1)], held_out)
    for number, row in enumerate(found.table.to_dict("records")):
        assert 0.1 <= row["kl"] <= 0.102
        assert again.estimate(number).value == pytest.approx(row["kl"], rel=1e-2)
        assert row["low"] < row["kl"] < row["high"]
    assert found.intervention(-1).describe() == {**add.describe(), "strength": found.strength(-1)}
    # The smallest strength that reaches it: every smaller one that was tried stays below.
    smaller = found.tried[(found.tried["strength"] > 0) & (found.tried["strength"] < found.strength(1))]
    assert len(smaller) > 3
    assert (smaller["kl"] < 0.1).all()
    assert "0.1" in repr(found)


def test_p95_is_met_at_a_smaller_strength_than_the_mean(chat, villain, held_out):
    add = pp.Add(villain, layers=LAYER)
    mean, p95 = (
        calibrate_strength(chat, add, held_out[:10], budget=0.3, statistic=statistic, signs=[1], tolerance=0.1)
        for statistic in ("mean", "p95")
    )
    assert 0.3 <= p95.table["kl"].item() <= 0.33
    assert p95.strength() < mean.strength()
    with pytest.raises(PersonaProbeError, match="sign -1 was not calibrated"):
        p95.intervention(-1)


def test_coherence_is_kept_up_to_the_strength_and_lost_beyond(chat, villain):
    asked = ask(random.Random("coherent"), UNSEEN[2::3], 24)
    add = pp.Add(villain, layers=LAYER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PersonaProbeWarning)
        found = calibrate_strength(
            chat,
            add,
            min_coherence=0.8,
            judge=OracleJudge(),
            questions=asked,
            signs=[1],
            sampling=replace(SHORT, seed=1),
        )
    floor = 0.8 * found.settings["unsteered"]
    tried = found.tried.set_index("strength")["coherent"]
    kept = found.strength()
    assert (tried[tried.index <= kept] >= floor - 1e-9).all()
    beyond = tried[tried.index > kept].sort_index()
    assert beyond.iloc[0] < floor
    assert beyond.index[0] <= 1.12 * kept


class _Flat(pp.Add):
    """Nothing is ever done, however strongly."""

    def with_strength(self, strength):
        flat = _Flat(self.direction, self.layers, strength=0.0)
        flat.asked = strength
        return flat


class _OneWay(pp.Add):
    """Something is done one way only."""

    def with_strength(self, strength):
        return _OneWay(self.direction, self.layers, strength=max(strength, 0.0))


def test_a_budget_that_cannot_be_met_is_said(chat, villain, held_out):
    with pytest.raises(PersonaProbeError, match=r"no strength up to 16384 meets the budget 0\.1 .*stays below"):
        calibrate_strength(chat, _Flat(villain, LAYER), held_out[:2])
    with pytest.warns(PersonaProbeWarning, match="not met with both signs: sign -1: the KL stays below it"):
        found = calibrate_strength(chat, _OneWay(villain, LAYER), held_out[:6])
    assert set(found.strengths) == {1}
    with pytest.raises(PersonaProbeError, match="sign -1 has no strength: the KL stays below"):
        found.intervention(-1)
    assert found.to_frame()["budget"].tolist() == [0.1, 0.1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": 0.0}, "budget=0.0"),
        ({"statistic": "median"}, "unknown statistic 'median'"),
        ({"signs": [2]}, r"signs=\(2,\)"),
        ({"tolerance": 0}, "tolerance=0"),
        ({"dialogues": None}, "needs dialogues="),
        ({"judge": OracleJudge()}, "only used with min_coherence="),
        ({"min_coherence": 0.9}, "needs judge= and questions="),
        ({"min_coherence": 1.5, "judge": OracleJudge(), "questions": TALKS}, "min_coherence=1.5"),
        ({"kind": pp.Ablate}, "takes no strength"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(chat, given, said):
    vectors = np.random.default_rng(0).normal(size=(chat.n_layers, chat.d_model))
    kind, given = given.get("kind", pp.Add), {name: value for name, value in given.items() if name != "kind"}
    steered = kind(pp.Direction.from_vectors(chat, vectors), 1)
    with pytest.raises(PersonaProbeError, match=said):
        calibrate_strength(chat, steered, **{"dialogues": TALKS, **given})


def test_the_table_opens_as_a_frame(chat, villain, held_out):
    found = calibrate_strength(chat, pp.Add(villain, LAYER), held_out[:4], budget=0.05, signs=[-1], tolerance=0.2)
    assert isinstance(found.to_frame(), pd.DataFrame)
    assert found.to_frame()[["sign", "budget", "statistic"]].to_numpy().tolist() == [[-1, 0.05, "mean"]]
