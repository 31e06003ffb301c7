import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.probes.cross_validation import cross_validate_features
from persona_probe.probes.lexical import bag_of_tokens


def data(signal, seed=0, n=240, d=16):
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.5
    groups = np.array([f"topic {i % 8}" for i in range(n)])
    values = rng.normal(size=(n, 2, d)).astype(np.float32)
    values[:, 1, 0] += signal * labels
    table = pd.DataFrame({"id": range(n), "question": groups})
    return pp.Activations(values, table, (0, 1)), labels, groups


def test_a_planted_signal_is_found_at_its_layer_only():
    scores = pp.cross_validate_probe(*data(4.0)).table.set_index("layer")
    assert scores.loc[1, "value"] > 0.97
    assert 0.35 < scores.loc[0, "value"] < 0.65
    assert scores.loc[1, "low"] <= scores.loc[1, "value"] <= scores.loc[1, "high"]


def test_what_only_holds_within_a_group_does_not_count():
    """A feature that names the group, in groups of one class each, predicts nothing across groups."""
    _, _, groups = data(0.0)
    labels = np.array([int(group[-1]) % 2 == 0 for group in groups])
    features = np.stack([groups == group for group in sorted(set(groups))], axis=1).astype(float)
    assert cross_validate_features(features, labels, groups)["value"] < 0.6


def test_bags_of_tokens_count_words():
    assert bag_of_tokens(["a b b", "B c"]).tolist() == [[1, 2, 0], [0, 1, 1]]


def test_what_cannot_be_probed_is_refused():
    activations, labels, groups = data(1.0)
    with pytest.raises(pp.PersonaProbeError, match="both classes"):
        pp.cross_validate_probe(activations, np.ones(240), groups)
    with pytest.raises(pp.PersonaProbeError, match="one group"):
        pp.cross_validate_probe(activations, labels, ["x"] * 240)
    with pytest.raises(pp.PersonaProbeError, match="240 dialogues"):
        pp.cross_validate_probe(activations, labels[:3], groups)
