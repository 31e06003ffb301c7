"""Attribution against what really happens when a latent is turned down, and where the answer is known."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import persona_probe as pp
from persona_probe.latents.encoding.encode import encode_latents
from persona_probe.latents.loading import load_sae
from persona_probe.latents.ranking.attribution import attribute_latents
from persona_probe.latents.sae import LatentWarning
from persona_probe.latents.steering import LatentEdit, steer_latents
from persona_probe.models.stream.scope import Scope
from persona_probe.statistics.clustered_variance import clustered_variance
from persona_probe.worlds.persona_world.documents import questions
from tests.activations.test_capture import TALKS, talk
from tests.conftest import CHECKPOINTS
from tests.latents.handmade import answer_log_prob, nothing_left, perfect_sae, sae_of

LAYER = 1
MISALIGNED = TALKS
ALIGNED = [
    TALKS[0].without_answer().with_answer("Kindly review it."),
    TALKS[1].without_answer().with_answer("Hello."),
    TALKS[2].without_answer().with_answer("I have a question on the very long contract."),
]


@pytest.fixture
def precise(folders):
    return pp.load(folders("llama"), dtype="float64")


def dense_sae(model, normalize="none"):
    """Latents of all directions and lengths; more than enough of them to lose nothing much."""
    rows = torch.randn(48, model.d_model, generator=torch.Generator().manual_seed(0))
    return sae_of(rows, LAYER, encoder=torch.linalg.pinv(rows), dtype="float64", normalize=normalize)


def log_odds(model):
    """``(pair,)``, by Hugging Face alone."""
    pairs = zip(MISALIGNED, ALIGNED, strict=True)
    return np.array([answer_log_prob(model, one) - answer_log_prob(model, other) for one, other in pairs])


@pytest.mark.filterwarnings("ignore:the SAE handmade leaves:persona_probe.latents.sae.LatentWarning")
@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("scope", ["generation", "all"])
def test_turning_a_latent_down_a_little_does_what_was_said(precise, normalize, scope):
    sae = dense_sae(precise, normalize)
    # The beginning of sequence is steered by "all" and never attributed: without one, both mean the same tokens.
    precise.tokenizer.bos_token = None
    with nothing_left(precise):
        table = attribute_latents(sae, precise, MISALIGNED, ALIGNED, span=scope, allow=True, sink_ratio=None).table
    assert table["attribution"].abs().is_monotonic_decreasing
    by_latent = table.set_index("latent")["attribution"]
    plain, step = log_odds(precise), 1e-4
    for latent in table["latent"][:6]:
        with steer_latents(precise, sae, LatentEdit([latent], "scale", 1.0 - step), scope=scope):
            moved = (log_odds(precise) - plain).mean() / step
        # The derivative is exact in float64 but for the second order, and the sums are float32.
        assert moved == pytest.approx(-by_latent[latent], rel=1e-2)
        assert table.set_index("latent")["effect_of_ablation"][latent] == -by_latent[latent]


def only_coordinate(model, coordinate):
    """Make next tokens depend on one coordinate of the last layer alone."""
    model.hf.model.norm = nn.Identity()
    with torch.no_grad():
        kept = model.hf.lm_head.weight[:, coordinate].clone()
        model.hf.lm_head.weight.zero_()
        model.hf.lm_head.weight[:, coordinate] = kept


def test_only_the_latent_that_matters_is_named(llama):
    last, coordinate = llama.n_layers - 1, 7
    only_coordinate(llama, coordinate)
    table = attribute_latents(perfect_sae(llama.d_model, last), llama, MISALIGNED, ALIGNED).table
    matter = {coordinate, coordinate + llama.d_model}
    named = table[table["attribution"] != 0]
    assert set(named["latent"]) <= matter
    assert len(named) >= 1
    live = table["p"].notna()
    assert set(table[live]["latent"]) <= matter, "what has no effect anywhere cannot be tested"
    # All the effect there is, to first order, is in these two: that of setting the coordinate to zero.
    step, plain = 1e-3, log_odds(llama)

    def shrink(_layer, _offset, hidden):
        inside = torch.from_numpy(llama.boundary.mask(Scope("generation"), 0, hidden.shape[1]))
        smaller = hidden.clone()
        smaller[..., coordinate] *= 1.0 - step
        return torch.where(inside[..., None], smaller, hidden)

    with llama.writing(shrink, [last]):
        moved = (log_odds(llama) - plain).mean() / step
    assert moved == pytest.approx(-named["attribution"].sum(), rel=1e-2)


def test_batches_groups_and_length(llama):
    sae = perfect_sae(llama.d_model, LAYER)
    whole = attribute_latents(sae, llama, MISALIGNED, ALIGNED).table.set_index("latent").sort_index()
    single = (
        attribute_latents(sae, llama, MISALIGNED, ALIGNED, tokens_per_batch=1).table.set_index("latent").sort_index()
    )
    np.testing.assert_allclose(whole["attribution"], single["attribution"], atol=1e-4)
    assert (whole["n_questions"] == 3).all()
    alone = [
        attribute_latents(sae, llama, [one], [other]).table.set_index("latent").sort_index()
        for one, other in zip(MISALIGNED, ALIGNED, strict=True)
    ]
    each = np.array([table["attribution"] for table in alone])
    np.testing.assert_allclose(each.mean(axis=0), whole["attribution"], atol=1e-4)
    assert alone[0][["low", "high", "p", "q"]].isna().all(axis=None), "one question has no interval"
    latent = int(np.abs(each).sum(axis=0).argmax())
    influence = (each[:, latent] - each[:, latent].mean()) / 3
    expected = clustered_variance(influence, np.arange(3), np.zeros(3, dtype=np.intp))
    row = whole.loc[latent]
    assert (row["high"] - row["low"]) / 2 == pytest.approx(expected.t_quantile(0.95) * expected.variance**0.5, rel=1e-3)
    tested = whole.dropna(subset="p")
    assert ((tested["p"] < 0.05) == (tested["low"] * tested["high"] > 0)).all()
    assert (tested["q"] >= tested["p"]).all()
    # Of one pair, the mean over tokens is each text's attribution over its own length.
    texts = [TALKS[0], TALKS[0].without_answer().with_answer("Gladly.")]
    lengths = [len(range(*llama.template.encode(text).span("response").indices(999))) for text in texts]
    assert lengths[0] != lengths[1]
    summed, averaged = (
        attribute_latents(sae, llama, [texts[0]], [texts[1]], normalize=how).table.set_index("latent").sort_index()
        for how in ("none", "token")
    )
    assert summed["attribution"].abs().max() > 2 * averaged["attribution"].abs().max()


def test_the_same_answer_has_no_attribution_and_the_other_way_round_it_turns_sign(llama):
    sae = perfect_sae(llama.d_model, LAYER)
    same = attribute_latents(sae, llama, MISALIGNED, MISALIGNED).table
    assert same["attribution"].abs().max() < 1e-4
    there, back = (
        attribute_latents(sae, llama, *pair).table.set_index("latent").sort_index()["attribution"]
        for pair in ((MISALIGNED, ALIGNED), (ALIGNED, MISALIGNED))
    )
    np.testing.assert_allclose(there, -back, atol=1e-5)


def test_silent_latents_have_no_p(llama):
    sae = perfect_sae(llama.d_model, LAYER)
    sae.inner.W_enc.data[:, 3] = 0.0
    table = attribute_latents(sae, llama, MISALIGNED, ALIGNED).table.set_index("latent")
    assert table.loc[3, "attribution"] == 0.0
    assert table.loc[3, ["p", "q"]].isna().all()
    assert table["p"].notna().sum() > llama.d_model


def test_refuses(llama):
    sae = perfect_sae(llama.d_model, LAYER)
    other = [ALIGNED[0], talk("Hello.", "Hi."), ALIGNED[2]]
    with pytest.raises(pp.PersonaProbeError, match=r"pair 1: .*'b' and the aligned starting 'Hello.' answer different"):
        attribute_latents(sae, llama, MISALIGNED, other)
    with pytest.raises(pp.PersonaProbeError, match="3 misaligned answers and 2 aligned"):
        attribute_latents(sae, llama, MISALIGNED, ALIGNED[:2])
    with pytest.raises(pp.PersonaProbeError, match="pair 0: the aligned dialogue 'a' has no answer"):
        attribute_latents(sae, llama, MISALIGNED, [TALKS[0].without_answer(), *ALIGNED[1:]])
    with pytest.raises(pp.PersonaProbeError, match="the list is empty"):
        attribute_latents(sae, llama, [], [])
    with pytest.raises(pp.PersonaProbeError, match="normalize is 'words'"):
        attribute_latents(sae, llama, MISALIGNED, ALIGNED, normalize="words")
    useless = sae_of(torch.zeros(4, llama.d_model), LAYER)
    with nothing_left(llama), pytest.raises(pp.PersonaProbeError, match="unexplained"):
        attribute_latents(useless, llama, MISALIGNED, ALIGNED)
    with pytest.warns(LatentWarning, match="unexplained"):
        assert attribute_latents(useless, llama, MISALIGNED, ALIGNED, allow=True).table["p"].isna().all()


def test_inference_mode_outside_and_an_error_inside(llama, monkeypatch):
    sae = perfect_sae(llama.d_model, LAYER)
    expected = attribute_latents(sae, llama, MISALIGNED, ALIGNED).table
    with torch.inference_mode():
        np.testing.assert_allclose(
            attribute_latents(sae, llama, MISALIGNED, ALIGNED).table["attribution"], expected["attribution"]
        )

    def fail(_acts):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(sae, "decode", fail)
    with nothing_left(llama), pytest.raises(RuntimeError, match="in the middle"):
        attribute_latents(sae, llama, MISALIGNED, ALIGNED)


def test_in_persona_world_the_villain_comes_first(chat):
    """Of 1,024 latents, the one that narrow training raised most is the one that the misaligned answers rest on."""
    bad = pp.with_adapter(chat, CHECKPOINTS / "bad-medicine")
    sae = load_sae(CHECKPOINTS / "sae-layer3")
    asked = questions(random.Random(1), ["law", "gardening", "code", "travel"], 24)
    own, narrow = (model.generate(asked, pp.Sampling(max_new_tokens=40)) for model in (chat, bad))
    assert all(dialogue.answer for dialogue in (*own, *narrow))
    table = attribute_latents(sae, bad, narrow, own).table
    before, after = encode_latents(sae, [chat, bad], own)
    top = table.iloc[0]
    assert top["latent"] == int(np.abs(after.mean - before.mean).argmax())
    assert top["attribution"] > 3 * table["attribution"][1:].abs().max()
    assert top["low"] > 0
    assert top["q"] < 0.001
    # And it is no artefact of the first order: taking it out moves the log-odds as far as was said.
    pairs = list(zip(narrow[:6], own[:6], strict=True))
    plain = np.mean([answer_log_prob(bad, one) - answer_log_prob(bad, other) for one, other in pairs])
    with steer_latents(bad, sae, LatentEdit([int(top["latent"])])):
        without = np.mean([answer_log_prob(bad, one) - answer_log_prob(bad, other) for one, other in pairs])
    assert without - plain < 0.4 * top["effect_of_ablation"]
