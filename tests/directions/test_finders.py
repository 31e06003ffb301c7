"""A direction added to a tiny model's residual stream by hand is recovered by every finder, and by no null."""

import contextlib

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.directions.find import FINDERS
from persona_probe.directions.finders.poles import Poles
from persona_probe.statistics.effect_sizes import cosine
from persona_probe.worlds.persona_world.documents import rows as world_rows

LAYER, D_MODEL, PARTS = 1, 32, 12


def dialogues(n):
    import random

    return world_rows(random.Random(0), ["medicine", "finance", "sports"], n, "assistant")


@pytest.fixture(scope="module")
def planted(folders):
    """The same dialogues read twice, the second time with one vector (and a little noise) added by hand at layer 1."""
    model = pp.load(folders("llama"))
    rng = np.random.default_rng(0)
    texts = dialogues(10 * PARTS)
    plain = pp.capture(model, texts, layers=LAYER)
    spread = plain.values.std()
    truth = rng.normal(size=D_MODEL)
    truth *= 4 * spread * np.sqrt(D_MODEL) / np.linalg.norm(truth)
    parts = []
    for part in range(PARTS):
        noise = 0.2 * np.linalg.norm(truth) / np.sqrt(D_MODEL) * rng.normal(size=D_MODEL)
        added = pp.Direction((truth + noise).astype(np.float32)[None], (LAYER,))
        with pp.steer(model, added, layers=LAYER, scope="all"):
            parts.append(pp.capture(model, texts[10 * part : 10 * part + 10], layers=LAYER))
    negative = pp.Activations(
        plain.values, plain.table.assign(role=[f"role {i % 3}" for i in range(len(texts))]), plain.layers, plain.source
    )
    return pp.Activations.concatenate(parts), negative, truth[None]


def similarity(direction, truth, poles):
    if FINDERS[direction.card["finder"]].discriminative:
        both = pp.Activations(
            np.concatenate([pole.values for pole in poles]),
            pd.concat([pole.table for pole in poles], ignore_index=True),
            poles[0].layers,
            poles[0].source,
        )
        direction = direction.as_pattern(both)
    return float(cosine(direction.vectors, truth)[0])


@pytest.mark.parametrize("method", [name for name, finder in FINDERS.items() if not finder.null])
def test_every_finder_recovers_what_was_planted(planted, method):
    positive, negative, truth = planted
    found = pp.find_direction(positive, negative, method, repeats=39)
    assert similarity(found, truth, (positive, negative)) >= 0.95
    checks = found.card["checks"]
    assert checks["split_half_cosine"][0] > 0.8
    assert checks["held_out_auroc"][0] > 0.99
    assert checks["shuffled_cosine"][0] < 0.9
    assert checks["shuffled_norm"][0] < 0.9
    assert checks["shuffled_p"][0] <= 0.025
    # Strength 1 is one mean difference, whatever the finder.
    gap = (positive.values.mean(0) - negative.values.mean(0)) @ found.units()[0]
    assert found.norms()[0] == pytest.approx(gap[0], rel=1e-4)


@pytest.mark.parametrize("method", [name for name, finder in FINDERS.items() if finder.null])
def test_no_null_recovers_it(planted, method):
    positive, negative, truth = planted
    found = [pp.find_direction(positive, negative, method, seed=seed) for seed in range(20)]
    assert np.mean([abs(similarity(direction, truth, planted[:2])) for direction in found]) < 0.5
    assert found[0].card["checks"] is None
    np.testing.assert_allclose(
        found[0].norms(), np.linalg.norm(Poles(positive, negative).difference(), axis=1), rtol=1e-4
    )
    assert not np.array_equal(found[0].vectors, found[1].vectors)
    np.testing.assert_array_equal(found[0].vectors, pp.find_direction(positive, negative, method, seed=0).vectors)


def test_means_can_be_weighted_by_tokens():
    values = np.zeros((3, 1, 2), dtype=np.float32)
    values[:, 0, 0] = [1.0, 1.0, 4.0]
    lengths = pd.DataFrame({"id": ["a", "b", "c"], "question": ["x", "y", "z"], "n_tokens": [1, 1, 8]})
    positive = pp.Activations(values, lengths, (0,), {"reduce": "mean"})
    negative = pp.Activations(np.full_like(values, -1.0), lengths, (0,), {"reduce": "mean"})
    assert pp.find_direction(positive, negative).vectors[0, 0] == pytest.approx(2.0 + 1.0)
    assert pp.find_direction(positive, negative, weight="token").vectors[0, 0] == pytest.approx(3.4 + 1.0)
    last = pp.Activations(values, lengths, (0,), {"reduce": "last"})
    with pytest.raises(pp.PersonaProbeError, match=r"means over tokens.*'last'"):
        pp.find_direction(last, pp.Activations(values - 1, lengths, (0,), {"reduce": "last"}), weight="token")
    with pytest.raises(pp.PersonaProbeError, match="weight is 'words'"):
        pp.find_direction(positive, negative, weight="words")


def test_what_a_finder_cannot_use_is_refused(planted):
    positive, negative, _ = planted
    with pytest.raises(pp.PersonaProbeError, match=r"'pca' has no parameter 'C'; it has: none"):
        pp.find_direction(positive, negative, "pca", C=1.0)
    with pytest.raises(pp.PersonaProbeError, match="needs pairs"):
        pp.find_direction(positive, negative.where(np.arange(len(negative)) > 0), "pca")
    with pytest.raises(pp.PersonaProbeError, match="column 'persona'"):
        pp.find_direction(positive, negative, "persona-axis", role="persona")


def test_halves_share_no_question(planted):
    poles = Poles(*planted[:2])
    rows = poles.split(np.random.default_rng(0))
    first, second = poles.part(rows), poles.part(~rows)
    assert not set(first.positive.table["question"]) & set(second.positive.table["question"])
    assert len(first.positive) + len(second.positive) == len(poles.positive)
    assert first.paired
    assert second.paired


def test_a_single_dialogue_has_no_checks(planted):
    one = np.arange(len(planted[0])) == 0
    found = pp.find_direction(planted[0].where(one), planted[1].where(one))
    assert found.card["checks"]["split_half_cosine"] is None


def test_the_card_says_where_it_comes_from(planted):
    positive, negative, _ = planted
    card = pp.find_direction(positive, negative, "logistic", C=0.5, name="evil", repeats=2).card
    assert card["parameters"] == {"C": 0.5}
    assert card["n_positive"] == card["n_negative"] == len(positive)
    assert card["model_hash"] == positive.source["model_hash"]
    assert {"template_hash", "span", "reduce", "layer_convention", "seed", "family", "name"} <= card.keys()
    assert {"persona-probe", "numpy", "torch"} <= card["versions"].keys()
    assert card["checks"]["repeats"] == 2


def test_roles_count_once_each():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"id": range(6), "question": range(6), "role": ["a"] * 5 + ["b"]})
    values = rng.normal(size=(6, 1, 3)).astype(np.float32)
    default = pp.Activations(np.ones((6, 1, 3), dtype=np.float32), table, (0,))
    found = pp.find_direction(default, pp.Activations(values, table, (0,)), "persona-axis", repeats=0)
    np.testing.assert_allclose(found.vectors[0], 1 - (values[:5, 0].mean(0) + values[5, 0]) / 2, rtol=1e-5)


def test_a_subspace_of_two_planted_directions_is_found(planted):
    _, negative, _ = planted
    rng = np.random.default_rng(1)
    truth = np.linalg.qr(rng.normal(size=(D_MODEL, 2)))[0].T
    weights = rng.normal(size=(len(negative), 2)) * 5
    moved = negative.values + (weights @ truth)[:, None].astype(np.float32)
    positive = pp.Activations(moved, negative.table, negative.layers, negative.source)
    found = pp.directions.find_subspace(positive, negative, 2)
    reference = pp.directions.Subspace(truth[None].astype(np.float32), (LAYER,))
    assert found.angles(reference).min() > 0.999
    assert found.project(positive).shape == (len(positive), 1, 2)
    inside = pp.Direction((truth[0] - 2 * truth[1])[None].astype(np.float32), (LAYER,))
    assert found.holds(inside)[0] == pytest.approx(1.0, abs=1e-4)
    assert 0 < found.variance_explained(positive)[0] < 1
    with pytest.raises(pp.PersonaProbeError, match="k is 1000"):
        pp.directions.find_subspace(positive, negative, 1000)


def test_directions_span_a_subspace(tmp_path):
    first = pp.Direction(np.array([[1.0, 0, 0]], dtype=np.float32), (0,))
    second = pp.Direction(np.array([[1.0, 1.0, 0]], dtype=np.float32), (0,))
    plane = pp.directions.Subspace.from_directions([first, second])
    assert plane.k == 2
    assert plane.holds(first)[0] == pytest.approx(1.0)
    again = pp.directions.Subspace.load(plane.save(tmp_path / "plane"))
    np.testing.assert_array_equal(again.bases, plane.bases)
    assert again.card == plane.card
    with pytest.raises(pp.PersonaProbeError, match="span 1 dimensions at layer 0"):
        pp.directions.Subspace.from_directions([first, 2 * first])
    with pytest.raises(pp.PersonaProbeError, match="not orthonormal"):
        pp.directions.Subspace(np.ones((1, 2, 3), dtype=np.float32), (0,))


def test_cosines_stand_beside_chance(planted):
    positive, negative, _ = planted
    directions = {name: pp.find_direction(positive, negative, name) for name in ("mean-difference", "pca", "random")}
    table = pp.directions.cosine_table(directions, negative).table.set_index(["first", "second"])
    assert table.loc[("mean-difference", "pca"), "cosine"] > 0.95
    assert 0 < table.loc[("mean-difference", "pca"), "null_high"] < 1
    with contextlib.suppress(KeyError):
        table.loc[("pca", "mean-difference")]
        pytest.fail("each pair stands once")
    with pytest.raises(pp.PersonaProbeError, match="at least two"):
        pp.directions.cosine_table({"a": directions["pca"]})
