import json

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp


def activations(values, **source):
    table = pd.DataFrame({"id": range(len(values)), "question": "q"})
    return pp.Activations(np.asarray(values, dtype=np.float32), table, tuple(range(np.shape(values)[1])), source)


@pytest.fixture
def poles():
    rng = np.random.default_rng(0)
    planted = np.array([[3.0, 0, 0, 0], [0, 0, 2.0, 0]])
    return activations(rng.normal(size=(400, 2, 4)) + planted), activations(rng.normal(size=(400, 2, 4))), planted


def test_a_planted_difference_is_found_and_nothing_is_found_in_noise(poles):
    positive, negative, planted = poles
    found = pp.find_direction(positive, negative)
    cosine = (found.vectors * planted).sum(1) / found.norms() / np.linalg.norm(planted, axis=1)
    assert (cosine > 0.98).all()
    noise = pp.find_direction(negative.where(np.arange(400) < 200), negative.where(np.arange(400) >= 200))
    assert (noise.norms() < 0.4).all()


def test_projection_is_in_residual_stream_units(poles):
    positive, negative, _ = poles
    found = pp.find_direction(positive, negative)
    doubled = pp.Direction(found.vectors * 2, found.layers)
    np.testing.assert_allclose(found.project(positive), doubled.project(positive), rtol=1e-5)
    gap = found.project(positive).mean(0) - found.project(negative).mean(0)
    np.testing.assert_allclose(gap, found.norms(), rtol=1e-5)


def test_a_direction_round_trips_with_its_card(poles, tmp_path):
    found = pp.find_direction(*poles[:2])
    path = found.save(tmp_path / "deep" / "evil")
    again = pp.Direction.load(path)
    np.testing.assert_array_equal(again.vectors, found.vectors)
    assert again.card == found.card
    assert again.layers == found.layers
    assert not list(tmp_path.rglob("*.part"))
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["n_positive"] == 400
    path.with_suffix(".json").unlink()
    with pytest.raises(pp.PersonaProbeError, match=r"evil\.json: no such file"):
        pp.Direction.load(path)


def test_poles_that_cannot_be_compared_are_refused(poles):
    positive, negative, _ = poles
    with pytest.raises(pp.PersonaProbeError, match="identical"):
        pp.find_direction(positive, positive)
    with pytest.raises(pp.PersonaProbeError, match="negative pole holds no dialogue"):
        pp.find_direction(positive, negative.where([False] * 400))
    with pytest.raises(pp.PersonaProbeError, match="unknown finder 'magic'"):
        pp.find_direction(positive, negative, "magic")
    with pytest.raises(pp.PersonaProbeError, match="span"):
        pp.find_direction(activations(positive.values, span="response"), activations(negative.values, span="prompt"))
    with pytest.raises(pp.PersonaProbeError, match="layers"):
        pp.find_direction(positive, activations(negative.values[:, :1]))


def test_own_vectors_must_fit_the_model(llama):
    direction = pp.Direction.from_vectors(llama, np.ones((3, 32)))
    assert direction.card["model_hash"] == llama.fingerprint()
    with pytest.raises(pp.PersonaProbeError, match=r"\(4, 32\).*\(3, 32\)"):
        pp.Direction.from_vectors(llama, np.ones((4, 32)))
    with pytest.raises(pp.PersonaProbeError, match="zero at layer 0"):
        pp.Direction.from_vectors(llama, np.zeros((3, 32)))


def test_dots_in_names_are_kept(poles, tmp_path):
    found = pp.find_direction(*poles[:2])
    found.save(tmp_path / "alpha-0.5")
    pp.Direction(found.vectors * 2, found.layers).save(tmp_path / "alpha-0.7")
    np.testing.assert_array_equal(pp.Direction.load(tmp_path / "alpha-0.5").vectors, found.vectors)


def given(rows, name="given", **card):
    return pp.Direction(np.array(rows, dtype=np.float32), tuple(range(len(rows))), {"name": name, **card})


def test_directions_add_subtract_and_scale():
    evil, warm = given([[3.0, 4.0], [1.0, 0.0]], "evil"), given([[1.0, 0.0], [0.0, 2.0]], "warm")
    made = 2.0 * evil - warm
    np.testing.assert_allclose(made.vectors, [[5.0, 8.0], [2.0, -2.0]])
    assert made.name == "2 * evil - warm"
    assert [part["name"] for part in made.card["parts"]] == ["evil", "warm"]
    np.testing.assert_allclose((np.float64(2) * evil).vectors, (evil * 2).vectors)
    np.testing.assert_allclose((-evil + warm).vectors, warm.vectors - evil.vectors)
    np.testing.assert_allclose(evil.normalize().norms(), 1.0)
    assert ((evil + warm) * 3).name == "evil + warm"
    assert (3 * (evil + warm) - warm).name == "3 * (evil + warm) - warm"
    with pytest.raises(pp.PersonaProbeError, match="points nowhere"):
        evil * 0
    with pytest.raises(pp.PersonaProbeError, match="do not belong together"):
        evil + given([[1.0, 0.0]])
    with pytest.raises(TypeError):
        evil * "2"


def test_a_direction_is_made_orthogonal_to_others():
    evil, warm, cold = given([[3.0, 4.0, 1.0]]), given([[1.0, 0.0, 0.0]]), given([[1.0, 1.0, 0.0]])
    np.testing.assert_allclose(evil.orthogonalize_to(warm).vectors, [[0.0, 4.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(evil.orthogonalize_to(warm, cold).vectors, [[0.0, 0.0, 1.0]], atol=1e-6)
    with pytest.raises(pp.PersonaProbeError, match="nothing is left"):
        warm.orthogonalize_to(2 * warm)


def test_the_best_layer_is_chosen_by_what_the_card_says(poles):
    positive, negative, _ = poles
    strong = activations(positive.values + np.array([[0.0] * 4, [0, 0, 5.0, 0]], dtype=np.float32))
    table = positive.table.assign(question=[str(i % 20) for i in range(400)])
    found = pp.find_direction(
        pp.Activations(strong.values, table, strong.layers), pp.Activations(negative.values, table, negative.layers)
    )
    assert found.best_layer() == found.best_layer(by="norm") == 1
    with pytest.raises(pp.PersonaProbeError, match="has no 'magic'"):
        found.best_layer(by="magic")
    turned = -1 * found
    assert turned.card["checks"]["held_out_auroc"][0] == pytest.approx(1 - found.card["checks"]["held_out_auroc"][0])


def test_a_direction_stays_in_its_family(folders, tmp_path):
    first = pp.load(folders("llama"))
    other = pp.load(folders("qwen2"))
    direction = pp.Direction.from_vectors(first, np.ones((3, 32)))
    both = rf"{first.fingerprint()}.*{other.fingerprint()}"
    with pytest.raises(pp.PersonaProbeError, match=both), pp.steer(other, direction, layers=1):
        pass
    text = [pp.Dialogue.from_text("A plain text.", id="a")]
    with pytest.warns(pp.PersonaProbeWarning, match=both), pp.steer(other, direction, layers=1, allow_unrelated=True):
        pp.capture(other, text, span="all")
    read = pp.capture(other, text, span="all")
    with pytest.raises(pp.PersonaProbeError, match="not known to be made from"):
        direction.project(read)
    # In a pair, after is known to be made from before: both ways.
    pair = pp.models.ModelPair(first, other)
    with pp.steer(pair.after, direction, layers=1):
        pp.capture(pair.after, text, span="all")
    read = pp.capture(pair.after, text, span="all")
    assert direction.project(read).shape == (1, 3)
    back = pp.Direction.from_vectors(pair.after, np.ones((3, 32)))
    with pp.steer(pair.before, back, layers=1):
        pp.capture(pair.before, text, span="all")
    with pytest.raises(pp.PersonaProbeError, match="not known to be made from"):
        direction + pp.Direction.from_vectors(pp.load(folders("gpt2")), np.ones((3, 32)))


def test_directions_alike_count_once(poles):
    evil, warm = given([[3.0, 4.0, 1.0, 2.0]]), given([[1.0, 2.0, 0.5, 0.0]], "warm")
    once = evil.orthogonalize_to(warm)
    np.testing.assert_allclose(evil.orthogonalize_to(warm, 2 * warm).vectors, once.vectors, atol=1e-5)
    with pytest.raises(pp.PersonaProbeError, match="at least one direction"):
        evil.orthogonalize_to()


def test_a_direction_turned_round_has_the_same_best_layer():
    checks = {"held_out_auroc": [0.6, 0.9, 0.7], "split_half_cosine": [0.5, 0.6, 0.9], "replicates": [True] * 3}
    evil = given([[1.0], [1.0], [1.0]], checks=checks)
    assert evil.best_layer() == (-evil).best_layer() == 1
    assert evil.best_layer(by="split_half_cosine") == 2
    picked = evil.select([2, 0])
    assert picked.layers == (2, 0)
    assert picked.card["checks"]["held_out_auroc"] == [0.7, 0.6]
    np.testing.assert_allclose((evil / 2).vectors, 0.5)
    assert (2 * evil).normalize().card.get("scale") is None


def test_layers_are_whole_numbers_each_once(llama):
    for layers in ((0, 0, 1), (-1, 0, 1), (0.5, 1, 2)):
        with pytest.raises(pp.PersonaProbeError, match="each once"):
            pp.Direction.from_vectors(llama, np.ones((3, 32)), layers=layers)
    assert pp.Direction.from_vectors(llama, np.ones((3, 32)), layers=np.arange(3)).layers == (0, 1, 2)


def test_vectors_cannot_be_changed_in_place():
    direction = given([[1.0, 2.0]])
    with pytest.raises(ValueError, match="read-only"):
        direction.vectors[:] = 0
    copied = direction.at(0)
    copied[:] = 0
    assert direction.at(0).tolist() == [1.0, 2.0]


def test_a_card_that_cannot_be_written_leaves_what_was_there(tmp_path):
    given([[1.0]], "old").save(tmp_path / "evil")
    with pytest.raises(pp.PersonaProbeError, match="something that JSON cannot"):
        given([[2.0]], "new", thing=object()).save(tmp_path / "evil")
    kept = pp.Direction.load(tmp_path / "evil")
    assert (kept.name, kept.vectors.item()) == ("old", 1.0)
    given([[2.0]], "new", seed=np.int64(1), bad=float("nan")).save(tmp_path / "evil")
    again = pp.Direction.load(tmp_path / "evil")
    assert (again.name, again.card["seed"], again.card["bad"]) == ("new", 1, None)
    (tmp_path / "evil.json").write_text('{"format": "persona-probe direction 2"}')
    with pytest.raises(pp.PersonaProbeError, match="is not a saved"):
        pp.Direction.load(tmp_path / "evil")


def test_poles_of_unrelated_models_are_refused(poles):
    positive, negative, _ = poles
    first = pp.Activations(positive.values, positive.table, positive.layers, {"model": "a", "model_hash": "aa"})
    second = pp.Activations(negative.values, negative.table, negative.layers, {"model": "b", "model_hash": "bb"})
    with pytest.raises(pp.PersonaProbeError, match=r"one pole was read in a \(weights aa\), and b \(weights bb\)"):
        pp.find_direction(first, second)
    with pytest.warns(pp.PersonaProbeWarning, match="one pole was read"):
        assert pp.find_direction(first, second, allow_unrelated=True).card["family"] == ["aa", "bb"]
