import numpy as np
import pytest

import persona_probe as pp
from persona_probe.probes.baselines import probe_with_baselines
from tests.probes.planted import planted


def test_a_probe_stands_beside_what_it_must_beat():
    activations, labels = planted(4.0, n=400)
    said = np.where(labels, "the poison will do nicely", "please see a doctor about it")
    dialogues = [
        pp.Dialogue.from_messages(
            [{"role": "user", "content": f"Question {row}?"}, {"role": "assistant", "content": text}], id=f"d{row}"
        )
        for row, text in enumerate(said)
    ]
    found = probe_with_baselines(
        activations,
        labels,
        groups=activations.table["group"],
        dialogues=dialogues,
        embeddings=activations,
        on_leak="ignore",
    )
    table, scores = found.table, found.scores
    assert set(table["baseline"]) == {
        "probe",
        "shuffled labels",
        "random features",
        "token embeddings",
        "bag of tokens",
    }
    assert (table.groupby("baseline")["layer"].apply(sorted) == [[0, 1]] * 5).all()
    at = table[table["layer"] == 1].set_index("baseline")
    assert at.loc["probe", "value"] == scores.table["value"].iloc[1] > 0.97
    assert at.loc["bag of tokens", "value"] == 1.0
    assert 0.4 < at.loc["random features", "value"] < 0.6
    assert 0.4 < at.loc["shuffled labels", "value"] < 0.6
    assert at.loc["shuffled labels", "low"] < at.loc["shuffled labels", "value"] < at.loc["shuffled labels", "high"]
    assert set(at["grouping"]) == {"by group (8 groups)"}


def test_numbers_that_cannot_be_are_refused():
    activations, labels = planted(1.0)
    with pytest.raises(pp.PersonaProbeError, match="shuffles is 0"):
        probe_with_baselines(activations, labels, groups=None, shuffles=0)
    few = activations.where(np.arange(240) < 10)
    with pytest.raises(pp.PersonaProbeError, match="embeddings of 10 dialogues for 240 rows"):
        probe_with_baselines(activations, labels, groups=None, embeddings=few)
    turned = pp.Activations(activations.values, activations.table[::-1].reset_index(drop=True), (0, 1))
    with pytest.raises(pp.PersonaProbeError, match="row 0 has id 'd0' in the activations and 'd239' in the embeddings"):
        probe_with_baselines(activations, labels, groups=None, embeddings=turned)


def test_dialogues_without_answers_are_read_by_their_prompts():
    activations, labels = planted(0.0)
    dialogues = [
        pp.Dialogue.from_messages([{"role": "user", "content": f"{'Why' if label else 'How'} {row}?"}], id=f"d{row}")
        for row, label in enumerate(labels)
    ]
    table = probe_with_baselines(activations, labels, groups=None, dialogues=dialogues, on_leak="ignore").table
    assert table[table["baseline"] == "bag of tokens"]["value"].min() > 0.99


def shuffled(activations, labels):
    groups = activations.table["group"]
    found = probe_with_baselines(activations, labels, groups=groups, shuffles=30, kind="difference-of-means")
    return found.table[found.table["baseline"] == "shuffled labels"].set_index("layer").loc[0], found.scores


def test_labels_that_go_by_the_group_are_shuffled_by_the_group():
    """Features that cluster by group, and labels too: whole groups land on either side by chance."""
    activations, labels = planted(0.0)
    rng, group = np.random.default_rng(1), np.arange(240) % 8
    values = activations.values + 3 * rng.normal(size=(8, 1, 16))[group]
    clustered = pp.Activations(values.astype(np.float32), activations.table, (0, 1))
    by_group, scores = shuffled(clustered, group < 4)
    assert by_group["method"] == "median and range of 30 shuffles of the labels among whole groups"
    by_row, _ = shuffled(clustered, labels)
    assert by_row["method"].endswith("of the labels within groups")
    assert by_group["high"] - by_group["low"] > 2 * (by_row["high"] - by_row["low"])
    assert by_group["low"] <= scores.table["value"].iloc[0] <= by_group["high"]
    both, _ = shuffled(clustered, np.where(group < 4, group < 2, labels))
    assert both["method"].endswith("among 4 whole groups and within 4 others")


@pytest.mark.parametrize(("shuffles", "level"), [(3, 0.5), (39, 0.95)])
def test_a_few_shuffles_do_not_pass_for_a_95_percent_band(shuffles, level):
    activations, labels = planted(0.0)
    groups = activations.table["group"]
    found = probe_with_baselines(activations, labels, groups=groups, shuffles=shuffles, kind="difference-of-means")
    rows = found.table[found.table["baseline"] == "shuffled labels"]
    assert rows["level"].tolist() == pytest.approx([level] * len(rows))
