import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.probes.cross_validation import cross_validate_features
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.lexical import bag_of_tokens
from tests.probes.planted import planted


def scored(signal, **settings):
    activations, labels = planted(signal)
    return pp.cross_validate_probe(activations, labels, **{"groups": activations.table["group"], **settings})


@pytest.mark.parametrize("kind", ["logistic", "difference-of-means", "lda", "ridge"])
def test_a_planted_signal_is_found_at_its_layer_only(kind):
    scores = scored(4.0, kind=kind)
    table = scores.table.set_index("layer")
    assert table.loc[1, "value"] > 0.97
    assert 0.35 < table.loc[0, "value"] < 0.65
    for name in ("value", "ap"):
        low, high = ("low", "high") if name == "value" else ("ap_low", "ap_high")
        assert table.loc[1, low] <= table.loc[1, name] <= table.loc[1, high]
    assert scores.best_layer == 1
    assert scores.probes.decision_function(planted(4.0)[0]).shape == scores.scores.shape


def test_every_score_is_of_a_probe_that_saw_no_row_of_the_group():
    activations, labels = planted(2.0)
    groups = activations.table["group"].to_numpy()
    scores = pp.cross_validate_probe(activations, labels, groups=groups, folds=4)
    assert all(len(set(scores.folds[groups == group])) == 1 for group in set(groups))
    for fold in set(scores.folds):
        test = scores.folds == fold
        alone = LayerProbes().fit(activations.where(~test), labels[~test])
        expected = alone.decision_function(activations.where(test))
        np.testing.assert_allclose(scores.scores[test], expected, atol=1e-3)


def test_shuffled_labels_give_chance():
    activations, labels = planted(4.0, n=800)
    values = []
    for seed in range(3):
        shuffled = np.random.default_rng(seed).permutation(labels)
        table = pp.cross_validate_probe(activations, shuffled, groups=activations.table["group"]).table
        values += table["value"].tolist()
    assert abs(np.mean(values) - 0.5) < 0.04


def test_what_only_holds_within_a_group_does_not_count():
    """A feature that names the group, in groups of one class each, predicts nothing across groups."""
    groups = planted(0.0)[0].table["group"].to_numpy()
    labels = np.array([int(group[-1]) % 2 == 0 for group in groups])
    features = np.stack([groups == group for group in sorted(set(groups))], axis=1).astype(float)
    assert cross_validate_features(features, labels, groups=groups)["value"] < 0.6


def test_groups_are_a_decision_that_results_show():
    activations, labels = planted(2.0)
    with pytest.raises(pp.PersonaProbeError, match=r"groups= is missing.*say groups=None"):
        pp.cross_validate_probe(activations, labels)
    ungrouped = pp.cross_validate_probe(activations, labels, groups=None)
    assert set(ungrouped.table["grouping"]) == {"ungrouped"}
    assert "ungrouped" in repr(ungrouped)
    grouped = scored(2.0)
    assert set(grouped.table["grouping"]) == {"by group (8 groups)"}
    assert "by group (8 groups)" in repr(grouped)
    assert "optimistic" in repr(grouped)


def test_bags_of_tokens_count_words():
    assert bag_of_tokens(["a b b", "B c"]).tolist() == [[1, 2, 0], [0, 1, 1]]


def test_what_cannot_be_probed_is_refused():
    activations, labels = planted(1.0)
    groups = activations.table["group"]
    with pytest.raises(pp.PersonaProbeError, match="both classes"):
        pp.cross_validate_probe(activations, np.ones(240), groups=groups)
    with pytest.raises(pp.PersonaProbeError, match="one group"):
        pp.cross_validate_probe(activations, labels, groups=["x"] * 240)
    with pytest.raises(pp.PersonaProbeError, match="240 dialogues"):
        pp.cross_validate_probe(activations, labels[:3], groups=groups)
    with pytest.raises(pp.PersonaProbeError, match="1 of 240 dialogues have no group"):
        pp.cross_validate_probe(activations, labels, groups=groups.where(groups.index > 0))
    with pytest.raises(pp.PersonaProbeError, match="neither true nor false"):
        pp.cross_validate_probe(activations, pd.Series(labels).astype(float).where(groups.index > 0), groups=groups)
    with pytest.raises(pp.PersonaProbeError, match="single group only"):
        pp.cross_validate_probe(activations, groups == "topic 3", groups=groups)
    with pytest.raises(pp.PersonaProbeError, match="folds is 1"):
        pp.cross_validate_probe(activations, labels, groups=groups, folds=1)
