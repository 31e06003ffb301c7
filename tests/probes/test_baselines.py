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
    table, scores = probe_with_baselines(
        activations,
        labels,
        groups=activations.table["group"],
        dialogues=dialogues,
        embeddings=activations,
        on_leak="ignore",
    )
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
    with pytest.raises(pp.PersonaProbeError, match="embeddings of 10 dialogues"):
        probe_with_baselines(activations, labels, groups=None, embeddings=few)
