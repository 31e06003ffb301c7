import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import persona_probe as pp
from persona_probe.errors import PersonaProbeWarning
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.transfer import transfer_between, transfer_matrix
from tests.probes.planted import planted


def two_personas():
    """``villain`` and ``trickster`` share a direction; ``sycophant`` has another; ``assistant`` is all of one class."""
    activations, labels = planted(0.0, n=960)
    part = np.array(["villain", "trickster", "sycophant", "assistant"])[np.arange(960) // 8 % 4]
    values = activations.values.copy()
    values[:, 1, 0] += 4 * labels * np.isin(part, ["villain", "trickster"])
    values[:, 1, 1] += 4 * labels * (part == "sycophant")
    labels = labels & (part != "assistant")
    return pp.Activations(values, activations.table.assign(persona=part), (0, 1)), labels


def test_probes_carry_over_where_the_direction_is_shared():
    activations, labels = two_personas()
    table = transfer_matrix(activations, labels, "persona", groups=activations.table["group"]).table
    assert len(table) == 4 * 4 * 2
    at = table[table["layer"] == 1].set_index(["train", "test"])
    for train, test in (("villain", "villain"), ("villain", "trickster"), ("trickster", "villain")):
        assert at.loc[(train, test), "value"] > 0.97
    for train, test in (("villain", "sycophant"), ("sycophant", "trickster")):
        assert 0.25 < at.loc[(train, test), "value"] < 0.75
    assert np.isnan(at.loc[("assistant", "villain"), "value"])
    assert at.loc[("villain", "assistant"), "method"] == "assistant holds dialogues of one class only"
    assert at.loc[("villain", "trickster"), "shared_groups"] == 8
    assert (table.loc[table["layer"] == 0, "value"].dropna() - 0.5).abs().max() < 0.25
    only = transfer_matrix(activations, labels, "persona", groups=activations.table["group"], layer=1).table
    np.testing.assert_allclose(only["value"], at["value"], atol=1e-6)


def test_the_diagonal_is_cross_validated():
    activations, labels = planted(0.0, n=120, d=60)
    part = np.where(np.arange(120) % 16 < 8, "a", "b")
    table = transfer_matrix(activations, labels, part, groups=activations.table["group"]).table.set_index(
        ["train", "test"]
    )
    assert table.loc[("a", "a"), "value"].max() < 0.75, "noise that was learned by heart would give 1"
    groups = np.where(part == "a", "one", activations.table["group"])
    alone = transfer_matrix(activations, labels, part, groups=groups).table.set_index(["train", "test"])
    assert alone.loc[("a", "a"), "value"].isna().all()
    assert alone.loc[("a", "a"), "method"].str.contains("one group").all()
    assert alone.loc[("a", "b"), "value"].notna().all()


def test_captures_are_compared_by_name():
    activations, labels = two_personas()
    sets = {
        name: (activations.where(rows), labels[rows])
        for name in ("villain", "sycophant")
        for rows in [(activations.table["persona"] == name).to_numpy()]
    }
    table = transfer_between(sets, groups="group", layer=1).table
    rows = np.isin(activations.table["persona"], list(sets))
    kept = activations.where(rows)
    same = transfer_matrix(kept, labels[rows], "persona", groups=kept.table["group"], layer=1).table
    first = table.set_index(["train", "test"])["value"]
    second = same.set_index(["train", "test"])["value"]
    assert first[("villain", "sycophant")] == pytest.approx(second[("villain", "sycophant")], abs=1e-3)
    with pytest.raises(pp.PersonaProbeError, match="groups= is missing"):
        transfer_between(sets)
    shallow = pp.Activations(activations.values[:, :1], activations.table, (0,))
    with pytest.raises(pp.PersonaProbeError, match=r"layers is \(0, 1\) in 'villain' and \(0,\) in 'other'"):
        transfer_between({**sets, "other": (shallow, labels)}, groups=None)


def test_shared_groups_are_tested_by_probes_that_never_saw_them():
    """The same dialogues under two names: noise that was learned by heart gives 1 on itself."""
    activations, labels = planted(0.0, n=120, d=60)
    sets = dict.fromkeys(("one", "again"), (activations, labels))
    table = transfer_between(sets, groups="group", layer=0).table.set_index(["train", "test"])
    assert table["value"].max() < 0.75
    assert table.loc[("one", "again"), "value"] == table.loc[("one", "one"), "value"]
    assert set(table["shared_groups"]) == {8}
    assert "pairs within 5 folds" in table.loc[("one", "again"), "method"]
    with pytest.raises(pp.PersonaProbeError, match=r"120 dialogues are in two parts \('d0', for example\)"):
        transfer_between(sets, groups=None)


def test_other_groups_are_tested_by_the_probe_of_all():
    activations, labels = planted(4.0)
    part = np.where(activations.table["group"].isin(["topic 0", "topic 1", "topic 2"]), "few", "many")
    table = transfer_matrix(activations, labels, part, groups=activations.table["group"], layer=1).table
    across = table[(table["train"] == "few") & (table["test"] == "many")].iloc[0]
    assert across["shared_groups"] == 0
    assert across["method"] == "jackknife t on the logit scale over 5 groups, given the fitted probe"
    few, many = part == "few", part == "many"
    alone = LayerProbes().fit(activations.where(few), labels[few]).decision_function(activations.where(many))[:, 1]
    assert across["value"] == pytest.approx(roc_auc_score(labels[many], alone))
    ungrouped = transfer_matrix(activations, labels, part, groups=None, layer=1).table
    assert ungrouped["shared_groups"].isna().all()


def test_unrelated_models_are_refused():
    one, labels = planted(1.0)
    other = pp.Activations(one.values, one.table.assign(id=one.table["id"] + "'"), (0, 1), {"model_hash": "def"})
    other.source["span"] = one.source["span"]
    sets = {"one": (one, labels), "other": (other, labels)}
    with pytest.raises(pp.PersonaProbeError, match=r"probes are trained in made up.*not known to be made"):
        transfer_between(sets, groups=None)
    with pytest.warns(PersonaProbeWarning, match="used anyway"):
        transfer_between(sets, groups=None, allow_unrelated=True)


def test_parts_must_be_there():
    activations, labels = planted(1.0)
    with pytest.raises(pp.PersonaProbeError, match="no column 'persona'"):
        transfer_matrix(activations, labels, "persona", groups=None)
    with pytest.raises(pp.PersonaProbeError, match="all dialogues are in one part"):
        transfer_matrix(activations, labels, ["x"] * 240, groups=None)
