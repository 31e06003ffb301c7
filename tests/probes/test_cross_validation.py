import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.probes.baselines import bag_of_tokens, words_of
from persona_probe.probes.cross_validation import cross_validate_features
from persona_probe.probes.inputs import assign_folds
from persona_probe.probes.layer_probes import LayerProbes
from tests.probes.planted import planted


def scored(signal, **settings):
    activations, labels = planted(signal)
    return pp.probes.cross_validate_probe(activations, labels, **{"groups": activations.table["group"], **settings})


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
    scores = pp.probes.cross_validate_probe(activations, labels, groups=groups, folds=4)
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
        table = pp.probes.cross_validate_probe(activations, shuffled, groups=activations.table["group"]).table
        values += table["value"].tolist()
    assert abs(np.mean(values) - 0.5) < 0.04


def test_what_only_holds_within_a_group_does_not_count():
    """A feature that names the group, in groups of one class each, predicts nothing across groups."""
    groups = planted(0.0)[0].table["group"].to_numpy()
    labels = np.array([int(group[-1]) % 2 == 0 for group in groups])
    features = np.stack([groups == group for group in sorted(set(groups))], axis=1).astype(float)
    assert cross_validate_features(features, labels, groups=groups)["value"] == 0.5


def one_class_a_group(rng, groups):
    return (rng.permutation(8) < 4)[groups]


def base_rate_a_group(rng, groups):
    return rng.random(len(groups)) < np.linspace(0.2, 0.8, 8)[groups]


@pytest.mark.parametrize("drawn", [one_class_a_group, base_rate_a_group])
def test_noise_gives_a_half_and_intervals_that_hold_it(drawn):
    """Compared across folds, noise gave 0.44; given the fitted probes, intervals held 0.5 in 84 to 88 % of cases."""
    groups, found = np.arange(240) % 8, []
    for seed in range(400):
        rng = np.random.default_rng(1000 + seed)
        features, labels = rng.normal(size=(240, 16)), drawn(rng, groups)
        settings = {"groups": groups, "kind": "difference-of-means", "seed": seed}
        found.append(cross_validate_features(features, labels, **settings))
    table = pd.DataFrame(found)
    assert table["method"].str.contains("for shared training rows").all()
    assert abs(table["value"].mean() - 0.5) < 0.01
    assert abs((table["ap"] - table["prevalence"]).mean()) < 0.02
    assert ((table["low"] <= 0.5) & (table["high"] >= 0.5)).mean() >= 0.92
    assert (table["high"] - table["low"]).median() < 0.4


def test_folds_each_hold_both_classes():
    rng = np.random.default_rng(0)
    for groups_with in (2, 3, 4):
        groups = np.repeat(np.arange(8), 10)
        labels = (groups < groups_with) & (rng.random(80) < 0.5)
        fold = assign_folds(labels, groups.astype(str), 5, 0)
        assert set(fold[labels]) == set(fold[~labels]) == set(range(groups_with))
    assert set(assign_folds(np.arange(8) % 2 == 0, None, 5, 0)) == {0, 1, 2, 3}


def test_seeds_are_shown_where_they_are_few():
    activations, labels = planted(1.0)
    asked = {"groups": activations.table["group"], "seeds": np.arange(240) // 8 % 3}
    scores = pp.probes.cross_validate_probe(activations, labels, **asked)
    assert scores.table["method"].str.startswith("two-way t on the logit scale over 8 groups and 3 seeds").all()
    assert scores.by_seed[["layer", "seed"]].to_numpy().tolist() == [[lay, seed] for lay in (0, 1) for seed in range(3)]
    at_best = scores.by_seed[scores.by_seed["layer"] == 1]
    assert at_best["n"].sum() == 240
    assert (at_best["value"] - scores.table["value"].iloc[1]).abs().max() < 0.2
    assert f"by seed: 0: {at_best['value'].iloc[0]:.3f}, 1: " in repr(scores)
    many = pp.probes.cross_validate_probe(activations, labels, **asked | {"seeds": np.arange(240) // 8 % 6})
    assert "by seed" not in repr(many)
    with pytest.raises(pp.PersonaProbeError, match="seeds= must name a seed for each of 240"):
        pp.probes.cross_validate_probe(activations, labels, groups=None, seeds=asked["seeds"])


def test_groups_are_a_decision_that_results_show():
    activations, labels = planted(2.0)
    with pytest.raises(pp.PersonaProbeError, match=r"groups= is missing.*give groups=None"):
        pp.probes.cross_validate_probe(activations, labels)
    ungrouped = pp.probes.cross_validate_probe(activations, labels, groups=None)
    assert set(ungrouped.table["grouping"]) == {"ungrouped"}
    assert "ungrouped" in repr(ungrouped)
    grouped = scored(2.0)
    assert set(grouped.table["grouping"]) == {"by group (8 groups)"}
    assert "by group (8 groups)" in repr(grouped)
    assert "optimistic" in repr(grouped)


def test_bags_of_tokens_count_words():
    asked = pp.Dialogue.from_messages([{"role": "user", "content": "Why so?"}])
    assert [words_of(asked), words_of(asked.with_answer("Because."))] == ["Why so?", "Because."]
    with pytest.raises(pp.PersonaProbeError, match="no word is in any of the 2 texts"):
        bag_of_tokens(["?", ""])
    assert bag_of_tokens(["a b b", "B c"]).tolist() == [[1, 2, 0], [0, 1, 1]]


def test_what_cannot_be_probed_is_refused():
    activations, labels = planted(1.0)
    groups = activations.table["group"]
    with pytest.raises(pp.PersonaProbeError, match="both classes"):
        pp.probes.cross_validate_probe(activations, np.ones(240), groups=groups)
    with pytest.raises(pp.PersonaProbeError, match="one group"):
        pp.probes.cross_validate_probe(activations, labels, groups=["x"] * 240)
    with pytest.raises(pp.PersonaProbeError, match="240 dialogues"):
        pp.probes.cross_validate_probe(activations, labels[:3], groups=groups)
    with pytest.raises(pp.PersonaProbeError, match="1 of 240 dialogues have no group"):
        pp.probes.cross_validate_probe(activations, labels, groups=groups.where(groups.index > 0))
    with pytest.raises(pp.PersonaProbeError, match="neither true nor false"):
        pp.probes.cross_validate_probe(
            activations, pd.Series(labels).astype(float).where(groups.index > 0), groups=groups
        )
    unknown = pd.Series(labels).astype("boolean").where(groups.index > 0)
    with pytest.raises(pp.PersonaProbeError, match="1 of 240 labels are neither true nor false"):
        pp.probes.cross_validate_probe(activations, unknown, groups=groups)
    with pytest.raises(pp.PersonaProbeError, match="single group only"):
        pp.probes.cross_validate_probe(activations, groups == "topic 3", groups=groups)
    with pytest.raises(pp.PersonaProbeError, match="folds is 1"):
        pp.probes.cross_validate_probe(activations, labels, groups=groups, folds=1)
