"""What an SAE keeps of a layer, against SAEs that keep all, nothing, or a known part."""

import math
import random

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.latents.reconstruction import measure_reconstruction
from persona_probe.latents.sae import LatentWarning
from persona_probe.worlds.persona_world.documents import questions
from tests.activations.test_capture import TALKS
from tests.conftest import CHECKPOINTS
from tests.latents.handmade import answer_log_prob, nothing_left, perfect_sae, sae_of

LAYER = 1


@pytest.mark.parametrize("span", ["all", "generation"])
def test_a_perfect_sae_loses_nothing(any_model, span):
    sae = perfect_sae(any_model.d_model, LAYER)
    with nothing_left(any_model):
        (row,) = measure_reconstruction({"before": any_model}, sae, TALKS, span, sink_ratio=None).table.to_dict(
            "records"
        )
    assert row["model"] == "before"
    assert row["fvu"] < 1e-10
    assert row["l0"] == pytest.approx(any_model.d_model)
    assert 0 <= row["dead"] < 0.5
    assert row["ce_sae"] == pytest.approx(row["ce"], abs=1e-5)
    for name in ("zero", "mean"):
        assert abs(row[f"ce_{name}"] - row["ce"]) > 1e-3, "replacing the layer must be seen"
    assert row["verdict"].startswith("fits")


def test_cross_entropy_is_that_of_the_answers(llama):
    spans = [llama.template.encode(talk).span("generation") for talk in TALKS]
    expected = -sum(answer_log_prob(llama, talk) for talk in TALKS) / sum(s.stop - s.start for s in spans)
    for budget in (1, 10_000):
        table = measure_reconstruction(
            llama, perfect_sae(llama.d_model, LAYER), TALKS, "generation", tokens_per_batch=budget, sink_ratio=None
        ).table
        assert table["ce"][0] == pytest.approx(expected, abs=1e-5)
        assert table["tokens"][0] == sum(span.stop - span.start for span in spans)


def test_what_dead_coordinates_cost(chat):
    """On a trained model and its own answers, where the layer is worth something."""
    own = chat.generate(questions(random.Random(1), ["law", "gardening"], 8), pp.Sampling(max_new_tokens=40))
    tokens = pp.capture(chat, own, span="generation", reduce="tokens", layers=LAYER).values[:, 0]
    sae = perfect_sae(chat.d_model, LAYER)
    lost = np.arange(20)
    for latent in (*lost, *(lost + chat.d_model)):
        sae.inner.W_enc.data[:, latent] = 0.0
    (row,) = measure_reconstruction(chat, sae, own, "generation", sink_ratio=None).table.to_dict("records")
    unexplained = np.square(tokens[:, lost]).sum() / np.square(tokens - tokens.mean(axis=0)).sum()
    assert row["fvu"] == pytest.approx(unexplained, rel=1e-4)
    assert row["dead"] >= 40 / (2 * chat.d_model)
    assert row["ce"] < row["ce_sae"] < min(row["ce_zero"], row["ce_mean"])
    assert row["ce_recovered"] == pytest.approx((row["ce_zero"] - row["ce_sae"]) / (row["ce_zero"] - row["ce"]))
    assert row["ce_recovered_mean"] == pytest.approx((row["ce_mean"] - row["ce_sae"]) / (row["ce_mean"] - row["ce"]))


def test_zeros_and_the_mean_are_what_is_put_in_and_the_beginning_stays(llama):
    """On the last layer logits are the final norm's and head's of what stands there."""
    last = llama.n_layers - 1
    tokens = pp.capture(llama, TALKS, span="all", reduce="tokens", layers=last)
    encoded = llama.encode(TALKS)
    starts = np.cumsum([0, *[len(item.input_ids) for item in encoded]])[:-1]
    begins = encoded[0].input_ids[0] == llama.tokenizer.bos_token_id
    assert begins, "the test needs a beginning-of-sequence token"
    values = torch.tensor(tokens.values[:, 0])
    shown = torch.ones(len(values), dtype=torch.bool)
    shown[starts] = False
    (row,) = measure_reconstruction(llama, perfect_sae(llama.d_model, last), TALKS, sink_ratio=None).table.to_dict(
        "records"
    )
    assert row["tokens"] == int(shown.sum())
    scored = torch.ones_like(shown)
    scored[[*(starts[1:] - 1), -1]] = False  # no token comes after the last
    targets = torch.tensor([token for item in encoded for token in item.input_ids]).roll(-1)[scored]
    for name, put in (("ce", values), ("ce_zero", torch.zeros(1)), ("ce_mean", values[shown].mean(dim=0))):
        stream = torch.where(shown[:, None], put.expand_as(values), values)
        with torch.inference_mode():
            logits = llama.hf.lm_head(llama.hf.model.norm(stream))[scored]
        assert row[name] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, targets)), abs=1e-4), name


def test_an_sae_that_does_not_fit_is_refused_and_leaves_nothing_behind(chat):
    sae = sae_of(torch.zeros(4, chat.d_model), LAYER)
    with nothing_left(chat), pytest.raises(pp.PersonaProbeError, match=r"leaves \d+% of the variance of"):
        measure_reconstruction(chat, sae, TALKS)
    with pytest.warns(LatentWarning, match="unexplained"):
        table = measure_reconstruction(chat, sae, TALKS, allow_unrelated=True, sink_ratio=None).table
    assert table["verdict"][0].startswith("does not fit")
    assert table["ce_sae"][0] == pytest.approx(table["ce_zero"][0])
    assert table["ce_recovered"][0] == pytest.approx(0.0, abs=1e-6)
    assert table["dead"][0] == 1.0


def test_an_error_half_way_leaves_no_hook(llama, monkeypatch):
    sae = perfect_sae(llama.d_model, LAYER)

    def fail(_hidden):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(sae, "reconstruct", fail)
    with nothing_left(llama), pytest.raises(RuntimeError, match="in the middle"):
        measure_reconstruction(llama, sae, TALKS)


def test_no_model_no_loss_and_no_next_token(llama):
    sae = perfect_sae(llama.d_model, LAYER)
    with pytest.raises(pp.PersonaProbeError, match="no models"):
        measure_reconstruction({}, sae, TALKS)
    table = measure_reconstruction(llama, sae, TALKS, loss=False).table
    assert not [column for column in table if column.startswith("ce")]
    assert table["verdict"][0] == "fits"
    asked = [talk.without_answer() for talk in TALKS]
    table = measure_reconstruction(llama, sae, asked, "last_prompt_token").table
    assert math.isnan(table["ce"][0])
    assert table["verdict"][0] == "fits"


def test_before_and_after_are_read_in_the_same_places(chat):
    bad = pp.with_adapter(chat, CHECKPOINTS / "bad-medicine")
    sae = perfect_sae(chat.d_model, 3)
    table = measure_reconstruction({"before": chat, "after": bad}, sae, TALKS).table
    assert table["model"].tolist() == ["before", "after"]
    assert table["tokens"].nunique() == 1
    assert (table["ce"].diff().abs()[1:] > 1e-3).all()
    np.testing.assert_allclose(table[["ce_recovered", "ce_recovered_mean"]], 1.0, atol=1e-4)
