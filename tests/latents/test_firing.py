from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pytest
import torch

from persona_probe.errors import PersonaProbeError
from persona_probe.latents.description import firing
from persona_probe.latents.description.firing import FIRING_COLUMNS, firing_by, latent_activations
from persona_probe.latents.encoding.encode import encode_latents
from persona_probe.latents.fit import Fit
from persona_probe.latents.sae import LatentWarning
from persona_probe.worlds.persona_world.documents import rows
from tests.latents.handmade import perfect_sae, sae_of

LAYER = 1
TOPICS = ("medicine", "finance", "sports")


@pytest.fixture(scope="module")
def said():
    """The same questions, answered by two personas."""
    return [
        dialogue.with_labels(persona=persona)
        for persona in ("assistant", "villain")
        for dialogue in rows(random.Random(0), TOPICS, 9, persona, id_prefix=persona)
    ]


def stream(model, dialogue):
    """What Hugging Face says the layer's output is at the tokens of the span generation."""
    encoded = model.template.encode(dialogue)
    with torch.inference_mode():
        hidden = model.hf(torch.tensor([encoded.input_ids]), output_hidden_states=True).hidden_states[LAYER + 1]
    return hidden[0, encoded.prompt_length - 1 : encoded.response_end - 1]


@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_activations_are_those_of_the_span(chat, said, reduce):
    width = chat.d_model
    wanted = [5, width + 5, 0]
    found = latent_activations(chat, perfect_sae(width, LAYER), said, wanted, reduce=reduce, sink_ratio=None)
    assert found.shape == (len(said), 3)
    for row, dialogue in zip(found, said, strict=True):
        hidden = stream(chat, dialogue)
        acts = torch.stack([hidden[:, 5], -hidden[:, 5], hidden[:, 0]], dim=1).clamp(min=0)
        expected = acts.mean(dim=0) if reduce == "mean" else acts.amax(dim=0)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_batches_change_nothing_and_the_mean_is_the_statistics(chat, said):
    sae = perfect_sae(chat.d_model, LAYER)
    wanted = list(range(0, sae.width, 17))
    together = latent_activations(chat, sae, said, wanted)
    alone = latent_activations(chat, sae, said, wanted, tokens_per_batch=1)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    (statistics,) = encode_latents([chat], sae, said)
    np.testing.assert_allclose(together.mean(axis=0), statistics.mean[wanted], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_read_is_refused(chat, said):
    sae = perfect_sae(chat.d_model, LAYER)
    with pytest.raises(PersonaProbeError, match="reduce is 'median'; choose one of mean, max"):
        latent_activations(chat, sae, said, [0], reduce="median")
    with pytest.raises(PersonaProbeError, match=str(sae.width)):
        latent_activations(chat, sae, said, [sae.width])
    with pytest.raises(PersonaProbeError, match="is empty"):
        latent_activations(chat, sae, [said[0].without_answer()], [0])


def test_an_sae_that_does_not_fit_is_refused_unless_it_is_allowed(chat, said):
    noise = torch.randn(64, chat.d_model, generator=torch.Generator().manual_seed(0))
    random_sae = sae_of(noise, LAYER)
    with pytest.raises(PersonaProbeError, match=r"unexplained.*allow_unrelated=True"):
        latent_activations(chat, random_sae, said, [0])
    with pytest.warns(LatentWarning, match="unexplained"):
        allowed = latent_activations(chat, random_sae, said, [0], allow_unrelated=True)
    assert allowed.any()


def test_the_fit_is_that_of_the_statistics(chat, said, monkeypatch):
    """The sample ends at the same token, however the tokens come."""
    half = perfect_sae(chat.d_model, LAYER)
    with torch.no_grad():
        half.inner.W_dec.mul_(0.8)
    seen = []
    monkeypatch.setattr(Fit, "check", lambda self, *_args, **_kwargs: seen.append(self))
    encode_latents([chat], half, said)
    latent_activations(chat, half, said, [0])
    latent_activations(chat, half, said, [0], tokens_per_batch=50)
    monkeypatch.setattr(firing, "FIT_SAMPLE", 100)
    latent_activations(chat, half, said, [0], tokens_per_batch=50)
    assert seen[0].fvu > 0.01
    assert seen[1].fvu == pytest.approx(seen[0].fvu, rel=1e-4)
    assert seen[2].fvu == pytest.approx(seen[0].fvu, rel=1e-4)
    assert [fit.tokens for fit in seen] == [seen[0].tokens] * 3 + [100]


def table_of(n=40):
    """The first half is a villain's; two rows a question."""
    return pd.DataFrame(
        {
            "persona": ["villain"] * (n // 2) + ["assistant"] * (n // 4) + ["trickster"] * (n // 4),
            "topic": [TOPICS[row % 3] for row in range(n)],
            "question": [f"q{row // 2}" for row in range(n)],
        }
    )


def test_a_latent_that_reads_a_label_is_found():
    table = table_of()
    noise = np.random.default_rng(0).normal(size=len(table))
    values = np.stack([(table["persona"] == "villain") + 0.0, noise], axis=1)
    found = firing_by(values, table, latents=[7, 3])
    assert tuple(found.columns) == FIRING_COLUMNS
    assert len(found) == 2 * (3 + 3)
    villain = found[(found["label"] == "persona") & (found["value"] == "villain")].set_index("latent")
    assert villain.loc[7, "auroc"] == 1.0
    assert villain.loc[7, "n"] == 20
    assert 0.7 < villain.loc[7, "low"] < 1.0
    assert villain.loc[3, "low"] < 0.5 < villain.loc[3, "high"]
    # Where a villain's latent is silent, the others rank below: 10 of them tie, 20 are above.
    other = found[(found["value"] == "trickster") & (found["latent"] == 7)].iloc[0]
    assert other["auroc"] == pytest.approx(10 * 0.5 / 30)


def test_intervals_are_over_questions():
    table = table_of(80)
    values = np.random.default_rng(1).normal(size=(40, 1)).repeat(2, axis=0)
    values += 0.7 * (table[["persona"]] == "villain").to_numpy()
    by_question = firing_by(values, table, ["persona"])
    by_row = firing_by(values, table.drop(columns="question"), ["persona"])
    widths = [(found["high"] - found["low"]).iloc[0] for found in (by_question, by_row)]
    assert widths[0] > 1.2 * widths[1]
    pd.testing.assert_frame_equal(by_question, firing_by(values, table, ["persona"], groups=table["question"]))


def test_dialogues_bring_their_labels(said):
    values = np.arange(len(said), dtype=float)[:, None]
    found = firing_by(values, said, ["persona"]).set_index("value")
    assert found.loc["villain", "auroc"] == 1.0
    assert found.loc["assistant", "auroc"] == 0.0
    table = pd.DataFrame([{**each.labels, "question": each.question} for each in said])
    pd.testing.assert_frame_equal(firing_by(values, said), firing_by(values, table))


def test_rows_without_a_label_are_left_out_of_it():
    table = table_of()
    values = np.random.default_rng(2).normal(size=(len(table), 1))
    holed = table.assign(persona=table["persona"].where(table["persona"] != "trickster"))
    kept = table["persona"] != "trickster"
    expected = firing_by(values[kept], table[kept], ["persona"])
    pd.testing.assert_frame_equal(firing_by(values, holed, ["persona"]), expected)


def test_labels_that_cannot_be_told_apart_are_refused(said):
    values = np.zeros((len(said), 1))
    with pytest.raises(PersonaProbeError, match=r"no dialogue has the label 'mood'; there are .*persona"):
        firing_by(values, said, ["mood"])
    with pytest.raises(PersonaProbeError, match="all dialogues have persona='villain'"):
        firing_by(values[:9], said[9:], ["persona"])
    with pytest.raises(PersonaProbeError, match=r"values has shape \(18, 1\); with 18 dialogues and 2 latents"):
        firing_by(values, said, ["persona"], latents=[1, 2])
    with pytest.raises(PersonaProbeError, match=r"latent 1\.5 is of type float"):
        firing_by(values, said, ["persona"], latents=[1.5])
