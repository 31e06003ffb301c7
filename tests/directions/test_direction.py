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
    direction = pp.Direction.from_vectors(np.ones((3, 32)), llama)
    assert direction.card["model_hash"] == llama.fingerprint()
    with pytest.raises(pp.PersonaProbeError, match=r"\(4, 32\).*\(3, 32\)"):
        pp.Direction.from_vectors(np.ones((4, 32)), llama)
    with pytest.raises(pp.PersonaProbeError, match="zero at layer 0"):
        pp.Direction.from_vectors(np.zeros((3, 32)), llama)


def test_dots_in_names_are_kept(poles, tmp_path):
    found = pp.find_direction(*poles[:2])
    found.save(tmp_path / "alpha-0.5")
    pp.Direction(found.vectors * 2, found.layers).save(tmp_path / "alpha-0.7")
    np.testing.assert_array_equal(pp.Direction.load(tmp_path / "alpha-0.5").vectors, found.vectors)
