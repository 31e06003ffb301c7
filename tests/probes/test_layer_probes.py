import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import persona_probe as pp
from persona_probe.probes.layer_probes import LayerProbes
from tests.probes.planted import planted


def test_saved_probes_come_back(tmp_path):
    activations, labels = planted(3.0)
    probes = LayerProbes(C=0.5).fit(activations, labels)
    path = probes.save(tmp_path / "misaligned")
    assert path.name == "misaligned.safetensors"
    assert set(load_file(path)) == {"weights", "intercept", "patterns"}
    card = json.loads(path.with_suffix(".json").read_text())
    assert (card["model_hash"], card["span"], card["kind"], card["C"]) == ("abc", "response", "logistic", 0.5)
    assert card["n_true"] + card["n_false"] == 240
    assert "output of block" in card["layer_convention"]
    again = LayerProbes.load(path)
    np.testing.assert_array_equal(again.decision_function(activations), probes.decision_function(activations))
    assert again.card_ == probes.card_
    assert repr(again) == repr(probes)
    with pytest.raises(pp.PersonaProbeError):
        pp.Direction.load(path)
    counted = LayerProbes(C=np.float32(0.5)).fit(activations, labels).save(tmp_path / "numpy")
    assert LayerProbes.load(counted).C == 0.5


def test_the_filter_avoids_what_disturbs_and_the_pattern_does_not_hold_it():
    """Feature 0 carries the class and a disturbance, feature 1 the disturbance alone (Haufe et al. 2014, figure 1)."""
    activations, labels = planted(0.0, n=2000)
    disturbance = np.random.default_rng(1).normal(size=2000)
    values = activations.values.copy()
    values[:, 1, 0] = labels + disturbance
    values[:, 1, 1] = 0.3 * np.random.default_rng(2).normal(size=2000) + disturbance
    probes = LayerProbes("lda").fit(pp.Activations(values, activations.table, (0, 1), activations.source), labels)
    weights, pattern = probes.direction().at(1), probes.direction(pattern=True).at(1)
    assert weights[1] / weights[0] < -0.7
    assert abs(pattern[1] / pattern[0]) < 0.3
    assert probes.direction(pattern=True).card["finder"] == "lda probe, pattern"


def test_what_does_not_belong_together_is_refused():
    activations, labels = planted(1.0)
    probes = LayerProbes()
    with pytest.raises(pp.PersonaProbeError, match="not fitted"):
        probes.direction()
    probes.fit(activations, labels)
    with pytest.raises(pp.PersonaProbeError, match="no probe of layer 7; there are 0, 1"):
        probes.at(7)
    with pytest.raises(pp.PersonaProbeError, match="d_model=4, the probes 16"):
        probes.decision_function(pp.Activations(activations.values[:, :, :4], activations.table, (0, 1)))
