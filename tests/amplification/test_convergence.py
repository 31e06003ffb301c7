from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.amplification.convergence import measure_convergence
from persona_probe.amplification.course import track_snapshots
from persona_probe.amplification.cross_ablation import cross_ablate
from tests.activations.test_capture import TALKS
from tests.amplification.planted import WIDTH, direction, reference
from tests.conftest import D_MODEL, N_LAYERS

ASKED = [replace(talk, question=talk.id, seed=None) for talk in TALKS]


def noisy(card, seed, noise):
    rng = np.random.default_rng(seed)
    vectors = direction(0, layers=2).vectors / 3 + noise * rng.normal(size=(2, WIDTH))
    return pp.Direction(vectors.astype(np.float32), (0, 1), card)


def test_noisy_copies_of_one_direction_reach_their_ceiling():
    rng, noise, n = np.random.default_rng(0), 0.08, 200
    halves = noise * np.sqrt(2) * rng.normal(size=(2, n, WIDTH)) + np.eye(WIDTH)[0]
    cosines = np.sum(halves[0] * halves[1], axis=1) / np.prod(np.linalg.norm(halves, axis=2), axis=0)
    card = {"checks": {"split_half_cosine": [float(cosines.mean())] * 2}}
    found = [
        measure_convergence(
            {"a": noisy(card, 2 * seed, noise), "b": noisy(card, 2 * seed + 1, noise)}, reference(2)
        ).table
        for seed in range(40)
    ]
    table = pd.concat(found)
    assert table["ceiling"].to_numpy() == pytest.approx(table["ceiling"].iloc[0])
    assert table["ceiling"].iloc[0] == pytest.approx(table["cosine"].mean(), abs=0.03)
    assert (table["cosine"] > table["null_high"]).all()


def test_pairs_and_unknown_ceilings():
    three = {"a": direction(0, layers=2), "b": direction(0, 1, layers=2), "c": direction(5, layers=2)}
    table = measure_convergence(three, reference(2)).table.set_index(["first", "second", "layer"])
    assert len(table) == 6
    assert table.loc[("a", "b", 1), "cosine"] == pytest.approx(np.sqrt(0.5))
    assert table.loc[("a", "c", 0), "cosine"] < table.loc[("a", "c", 0), "null_high"]
    assert table["ceiling"].isna().all()


def test_a_card_without_checks_has_no_ceiling():
    pair = {"a": noisy({"checks": None}, 0, 0.1), "b": noisy({}, 1, 0.1)}
    assert measure_convergence(pair, reference(2)).table["ceiling"].isna().all()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(pp.PersonaProbeError, match="at least two"):
        measure_convergence({"a": direction(0)}, reference())
    short = noisy({"checks": {"split_half_cosine": [0.9]}}, 0, 0.1)
    with pytest.raises(pp.PersonaProbeError, match=r"card of 'b' has split_half_cosine of shape \(1,\) for 2 layers"):
        measure_convergence({"a": direction(0, layers=2), "b": short}, reference(2))


class LengthJudge:
    """Calls answers with an even number of letters misaligned."""

    name = "length"
    trial = "it counts letters"

    def __call__(self, dialogues):
        even = [len(dialogue.answer) % 2 == 0 for dialogue in dialogues]
        return pd.DataFrame({"aligned": np.where(even, 0.0, 100.0), "coherent": 100.0})

    def applies(self, dialogues):
        return True


@pytest.fixture
def random_direction():
    rng = np.random.default_rng(0)
    return pp.Direction(rng.normal(size=(N_LAYERS, D_MODEL)).astype(np.float32), tuple(range(N_LAYERS)))


def test_cross_ablation_sets_every_condition_beside_its_null(llama, random_direction):
    questions = [talk.without_answer() for talk in TALKS]
    yardstick = pp.capture(llama, TALKS)
    table = cross_ablate(
        {"one": llama},
        {"mine": random_direction, "yours": 2 * random_direction},
        questions,
        LengthJudge(),
        layers={"mine": 0, "yours": 2},
        reference=yardstick,
        n_random=2,
        sampling=pp.Sampling(max_new_tokens=5),
    ).table
    assert table["intervention"].tolist() == ["none"] + ["clamp", "random clamp"] * 2
    assert table["layer"].isna().tolist() == [True] + [False] * 4
    assert table["n"].tolist() == [3, 3, 6, 3, 6]
    assert table["value"].between(0, 1).all()
    assert not llama.steered
    with pytest.raises(pp.PersonaProbeError, match="no layer for 'yours'; it has mine"):
        cross_ablate(
            {"one": llama},
            {"mine": random_direction, "yours": random_direction},
            questions,
            LengthJudge(),
            layers={"mine": 0},
            reference=yardstick,
        )
    with pytest.raises(pp.PersonaProbeError, match="there is no question"):
        cross_ablate({"one": llama}, {"mine": random_direction}, [], LengthJudge(), layers=0, reference=yardstick)


def test_cross_ablation_steers_the_span_that_its_target_was_read_over(llama, random_direction):
    named = {"mine": random_direction}
    yardstick = pp.capture(llama, TALKS, "response")
    with pytest.raises(pp.PersonaProbeError, match="span is 'response' in the reference and 'generation' in scope"):
        cross_ablate({"one": llama}, named, TALKS, LengthJudge(), layers=0, reference=yardstick)


def test_snapshots_are_measured_in_turn(llama, random_direction, folders):
    other = pp.load(folders("llama"))
    for parameter in other.hf.parameters():
        parameter.data += 0.02
    other.descends_from(llama)
    texts = [replace(talk, id=f"{talk.id}{i}", question=f"{talk.id}{i}") for talk in ASKED for i in range(2)]
    yardstick = pp.capture(llama, texts)
    few = {"n_random": 20, "n_permutations": 50}
    table = track_snapshots(
        llama,
        [llama, other],
        random_direction,
        texts,
        yardstick,
        control=llama,
        steps=[0, 10],
        names=["start", "end"],
        **few,
    ).table
    after = table[table["model"] == "after"]
    assert after["step"].tolist() == [0] * N_LAYERS + [10] * N_LAYERS
    assert (after.loc[after["name"] == "start", "shift_sd"] == 0).all()
    assert (after.loc[after["name"] == "start", "p_corrected"] == 1).all()
    assert (after.loc[after["name"] == "end", "shift_sd"] != 0).all()
    alone = track_snapshots(llama, [other], random_direction, texts, yardstick, **few).table
    assert alone["name"].tolist() == [other.name] * N_LAYERS
    np.testing.assert_allclose(alone["shift"], after.loc[after["name"] == "end", "shift"], rtol=1e-4)
    with pytest.raises(pp.PersonaProbeError, match="list is empty"):
        track_snapshots(llama, [], random_direction, texts, yardstick)


def test_steps_and_names_are_counted_before_anything_is_read(llama, random_direction):
    yardstick = pp.capture(llama, TALKS)
    with pytest.raises(pp.PersonaProbeError, match="1 steps for 2 snapshots"):
        track_snapshots("nor before", ["never read", "nor this"], random_direction, TALKS, yardstick, steps=[1])
    with pytest.raises(pp.PersonaProbeError, match="3 names for 1 snapshots"):
        track_snapshots("nor before", ["never read"], random_direction, TALKS, yardstick, names="abc")
    with pytest.raises(pp.PersonaProbeError, match="2 steps for 1 snapshots"):
        track_snapshots(llama, iter([llama]), random_direction, ASKED, yardstick, steps=[1, 2], n_random=5)


def test_snapshots_of_unknown_origin_need_to_be_allowed(llama, random_direction, folders):
    stranger = pp.load(folders("llama"))
    for parameter in stranger.hf.parameters():
        parameter.data += 0.02
    yardstick = pp.capture(llama, ASKED)
    with pytest.raises(pp.PersonaProbeError, match="after was read in"):
        track_snapshots(llama, [stranger], random_direction, ASKED, yardstick, n_random=5)
    with pytest.warns(pp.PersonaProbeWarning, match="after was read in"):
        assert len(
            track_snapshots(
                llama, [stranger], random_direction, ASKED, yardstick, n_random=5, allow_unrelated=True
            ).table
        )
