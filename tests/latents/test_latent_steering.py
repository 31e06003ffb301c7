import contextlib

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.latents.sae import Sae
from persona_probe.latents.steering import LatentEdit, steer_latents
from tests.activations.test_capture import TALKS
from tests.latents.conftest import LAYER, make_inner, make_sae

SCOPES = ("generation", "response", "prompt", "all")
EDITS = {
    "ablate": (LatentEdit([3, 40], "ablate"), lambda a: 0 * a),
    "clamp": (LatentEdit([3, 40], "clamp", -1.5), lambda a: 0 * a - 1.5),
    "add": (LatentEdit([3, 40], "add", 2.0), lambda a: a + 2.0),
    "scale": (LatentEdit([3, 40], "scale", 3.0), lambda a: a * 3.0),
}


def streams(model, dialogues=TALKS):
    """The stream at LAYER of every token, by dialogue."""
    read = pp.capture(model, dialogues, span="all", reduce="tokens", layers=LAYER)
    rows = read.table["dialogue"].to_numpy()
    return [torch.tensor(read.values[rows == row, 0]) for row in range(len(dialogues))]


def expected(sae, hidden, latents, new, places):
    """By decoding all latents with and without the edit, at ``places`` alone."""
    acts = sae.encode(hidden)
    before = sae.decode(acts)
    edited = acts.clone()
    edited[:, latents] = new(acts[:, latents])
    sae.encode(hidden)
    moved = hidden.clone()
    moved[places] += (sae.decode(edited) - before)[places]
    return moved


@pytest.mark.parametrize("kind", ["standard", "gated", "jumprelu", "topk", "topk in decoder norms", "abstopk"])
@pytest.mark.parametrize("normalised", ["none", "layer_norm", "constant_norm_rescale"])
def test_only_the_change_of_activations_is_decoded_and_added(llama, kind, normalised):
    sae, plain = make_sae(kind, normalize_activations=normalised), streams(llama)
    for edit, new in EDITS.values():
        with steer_latents(llama, sae, edit, scope="all"):
            steered = streams(llama)
        for hidden, found in zip(plain, steered, strict=True):
            torch.testing.assert_close(found, expected(sae, hidden, [3, 40], new, slice(None)), atol=1e-4, rtol=1e-4)


def test_along_others_the_displacement_is_as_long_at_every_token_and_goes_their_way(llama):
    sae, plain = make_sae(), streams(llama)
    edit = LatentEdit([3], "clamp", -1.5)
    with steer_latents(llama, sae, edit, scope="all"):
        own = streams(llama)
    with steer_latents(llama, sae, LatentEdit([3], "clamp", -1.5, along={3: 40}), scope="all"):
        other = streams(llama)
    way = sae.rows([40])[0] / sae.rows([40])[0].norm()
    for hidden, one, two in zip(plain, own, other, strict=True):
        torch.testing.assert_close((two - hidden).norm(dim=1), (one - hidden).norm(dim=1), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(((two - hidden) @ way).abs(), (two - hidden).norm(dim=1), atol=1e-4, rtol=1e-3)
    with pytest.raises(pp.PersonaProbeError, match=r"along names \[4\], but the latents are \[3\]"):
        LatentEdit([3], along={4: 5})


@pytest.mark.parametrize("scope", SCOPES)
def test_a_scope_hits_exactly_the_tokens_it_names(any_model, scope):
    sae, plain = make_sae(), streams(any_model)
    with steer_latents(any_model, sae, EDITS["add"][0], scope=scope):
        steered = streams(any_model)
    for dialogue, hidden, found in zip(TALKS, plain, steered, strict=True):
        places = any_model.template.encode(dialogue).span(scope)
        outside = torch.ones(len(hidden), dtype=torch.bool)
        outside[places] = False
        torch.testing.assert_close(found, expected(sae, hidden, [3, 40], EDITS["add"][1], places), atol=1e-4, rtol=1e-4)
        assert torch.equal(found[outside], hidden[outside])


def test_a_wide_sae_is_applied_a_few_tokens_at_a_time(llama, monkeypatch):
    from persona_probe.latents import sae as module
    from persona_probe.latents import steering

    found = {}
    for kind in ("topk", "jumprelu"):
        for at_once in (10_000, 3):
            monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", at_once * 48)
            monkeypatch.setattr(steering, "_TOKENS_AT_ONCE", at_once)
            sae = make_sae(kind, normalize_activations="layer_norm")
            with steer_latents(llama, sae, EDITS["clamp"][0], scope="all"):
                found[at_once] = streams(llama)
        for one, other in zip(found[3], found[10_000], strict=True):
            torch.testing.assert_close(one, other)


def test_each_dialogue_gets_its_own_edit_wherever_it_is_sorted_to(any_model):
    sae, plain = make_sae(), streams(any_model)
    edits = [LatentEdit({3: 1.0, 7: -2.0}, "add"), None, LatentEdit([7], "clamp", 4.0)]
    for budget in (1, 2048):
        with steer_latents(any_model, sae, edits):
            many = pp.capture(any_model, TALKS, layers=LAYER, tokens_per_batch=budget).values
            steered = streams(any_model)
        for row, edit in enumerate(edits):
            if edit is None:
                assert torch.equal(steered[row], plain[row])
                continue
            with steer_latents(any_model, sae, edit):
                alone = pp.capture(any_model, [TALKS[row]], layers=LAYER).values
            np.testing.assert_allclose(many[row], alone[0], atol=1e-4)
            assert (steered[row] - plain[row]).abs().max() > 0.1


@pytest.mark.parametrize("edit", [LatentEdit([3, 40], "scale", 1.0), LatentEdit([3, 40], "add", 0.0)])
def test_an_edit_that_changes_nothing_is_bit_identical(any_model, edit):
    plain = streams(any_model)
    with steer_latents(any_model, make_sae(), edit, scope="all"):
        assert all(torch.equal(a, b) for a, b in zip(streams(any_model), plain, strict=True))


def test_clamping_to_what_it_is_anyhow_leaves_the_stream(llama):
    sae, plain = make_sae(), streams(llama)
    last = [TALKS[0].without_answer()]
    values = sae.encode(streams(llama, last)[0][-1])[[3, 40]].tolist()
    own, other = (LatentEdit(dict(zip([3, 40], numbers, strict=True)), "clamp") for numbers in (values, [9.0, 9.0]))
    for edit, same in ((own, True), (other, False)):
        with steer_latents(llama, sae, edit, scope="generation"):
            assert torch.allclose(streams(llama, last)[0], plain[0][: len(streams(llama, last)[0])], atol=1e-5) == same


def answers(model, dialogues=TALKS, **more):
    asked = [dialogue.without_answer() for dialogue in dialogues]
    return [d.answer for d in model.generate(asked, pp.Sampling(max_new_tokens=8, temperature=0, **more))]


STRONG = [LatentEdit([3], "clamp", 40.0), None, LatentEdit([7, 40], "add", 60.0)]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("edits", [STRONG[0], STRONG], ids=["one", "each"])
def test_cached_generation_is_uncached_generation_and_batched_is_single(any_model, scope, edits):
    sae = make_sae("topk")
    with steer_latents(any_model, sae, edits, scope=scope):
        cached, single = answers(any_model), answers(any_model, batch_size=1)
        any_model.hf.generation_config.use_cache = False
        try:
            uncached = answers(any_model)
        finally:
            any_model.hf.generation_config.use_cache = True
    assert cached == single == uncached
    assert cached != answers(any_model)


def test_edits_follow_their_dialogues_through_generation_with_several_answers(any_model):
    sae, plain = make_sae(), answers(any_model)
    alone = []
    for edit, dialogue in zip(STRONG, TALKS, strict=True):
        with steer_latents(any_model, sae, edit) if edit else contextlib.nullcontext():
            alone += answers(any_model, [dialogue])
    with steer_latents(any_model, sae, STRONG):
        assert answers(any_model) == alone
        assert answers(any_model, batch_size=2) == alone
    mixed = [STRONG[0], None, None, STRONG[0], STRONG[2], None]
    with steer_latents(any_model, sae, mixed):
        twice = answers(any_model, n=2)
    assert twice == [alone[0], plain[0], plain[1], twice[3], alone[2], plain[2]]
    assert twice[3] != plain[1]


def test_decoding_step_by_step_edits_every_fed_back_token(llama):
    """What each forward leaves at LAYER while an answer is generated, against the same text read afterwards."""
    sae, seen = make_sae(), []
    edit, new = EDITS["add"]
    asked = TALKS[0].without_answer()
    with steer_latents(llama, sae, edit), llama.stream.reading(lambda _, h: seen.append(h[0].clone()), [LAYER]):
        ids = llama.template.encode(asked).input_ids
        out = llama.hf.generate(input_ids=torch.tensor([ids]), max_new_tokens=5, min_new_tokens=5, do_sample=False)
    steered = torch.cat(seen)
    raw = []
    with torch.inference_mode(), llama.stream.reading(lambda _, h: raw.append(h[0].clone()), [LAYER]):
        llama.stream.backbone(input_ids=out[:, :-1], use_cache=False)
    places = slice(len(ids) - 1, None)
    torch.testing.assert_close(steered, expected(sae, raw[0], [3, 40], new, places), atol=1e-4, rtol=1e-4)
    assert len(steered) == len(ids) + 4


def test_every_door_is_steered_and_closed_afterwards(any_model):
    ids = torch.tensor([any_model.template.encode(TALKS[0].without_answer()).input_ids] * 2)
    more = {"do_sample": False, "max_new_tokens": 6}
    plain = any_model.hf.generate(input_ids=ids, **more)
    sae = make_sae()
    with steer_latents(any_model, sae, [STRONG[0], None]):
        theirs = any_model.hf.generate(input_ids=ids, **more)
        bridged = any_model.bridge.generate(ids, verbose=False, stop_at_eos=False, **more)
        with pytest.raises(pp.PersonaProbeError, match="bare forward"):
            any_model.hf(input_ids=ids)
        with pytest.raises(pp.PersonaProbeError, match="given 2 interventions"):
            any_model.hf.generate(input_ids=ids[:1], **more)
    width = min(theirs.shape[1], bridged.shape[1])
    assert torch.equal(theirs[:, :width], bridged[:, :width])
    assert torch.equal(theirs[1, :width], plain[1, :width])
    assert not torch.equal(theirs[0, :width], plain[0, :width])
    assert torch.equal(any_model.hf.generate(input_ids=ids, **more), plain)
    logits = any_model.hf(input_ids=ids).logits
    with steer_latents(any_model, sae, STRONG[0], scope="all"):
        assert (any_model.hf(input_ids=ids).logits - logits).abs().max() > 1e-2
    assert "generate" not in vars(any_model.hf)


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_hooks_go_after_an_error(llama, stop):
    plain = streams(llama)
    with pytest.raises(stop), steer_latents(llama, make_sae(), STRONG):
        raise stop
    assert not llama.steered
    assert all(torch.equal(a, b) for a, b in zip(streams(llama), plain, strict=True))


def test_latents_of_a_stream_that_is_steered_already(llama):
    """The context opened last writes first."""
    sae, plain = make_sae(), streams(llama)
    direction = pp.Direction.from_vectors(llama, np.random.default_rng(0).normal(size=(3, 32)))
    shift = 2.0 * torch.tensor(direction.at(LAYER))
    edit, new = EDITS["scale"]
    with (
        steer_latents(llama, sae, edit, scope="all"),
        pp.steer(llama, direction, layers=LAYER, strength=2.0, scope="all"),
    ):
        outside = streams(llama)
    with (
        pp.steer(llama, direction, layers=LAYER, strength=2.0, scope="all"),
        steer_latents(llama, sae, edit, scope="all"),
    ):
        inside = streams(llama)
    for hidden, first, last in zip(plain, outside, inside, strict=True):
        torch.testing.assert_close(
            first, expected(sae, hidden + shift, [3, 40], new, slice(None)), atol=1e-4, rtol=1e-4
        )
        torch.testing.assert_close(last, expected(sae, hidden, [3, 40], new, slice(None)) + shift, atol=1e-4, rtol=1e-4)


def test_half_precision_models_are_steered_in_their_own_precision(folders):
    model = pp.load(folders("llama"), dtype="bfloat16")
    sae, plain = make_sae(), streams(model)
    with steer_latents(model, sae, EDITS["add"][0], scope="all"):
        steered = streams(model)
    for hidden, found in zip(plain, steered, strict=True):
        torch.testing.assert_close(
            found, expected(sae, hidden, [3, 40], EDITS["add"][1], slice(None)), atol=0.05, rtol=0.02
        )


def test_a_gradient_flows_through_edited_latents(llama):
    embedded = llama.plain.get_input_embeddings()(torch.tensor([llama.template.encode(TALKS[0]).input_ids])).detach()
    embedded.requires_grad_()
    with steer_latents(llama, make_sae(), EDITS["scale"][0], scope="all"):
        llama.hf(inputs_embeds=embedded).logits.square().mean().backward()
    assert embedded.grad.abs().sum() > 0


@pytest.mark.parametrize("number", [1, 2, 4])
def test_as_many_edits_as_dialogues(llama, number):
    said = rf"given {number} interventions.*one for each dialogue"
    with pytest.raises(pp.PersonaProbeError, match=said), steer_latents(llama, make_sae(), [STRONG[0]] * number):
        answers(llama)
    assert not llama.steered


@pytest.mark.parametrize(
    ("latents", "arguments", "said"),
    [
        ([1], {"kind": "push"}, "unknown kind.*'push'"),
        ([1], {"kind": "clamp"}, "needs an amount"),
        ([1], {"kind": "ablate", "amount": 1.0}, "has no amount"),
        ({1: 2.0}, {"kind": "ablate"}, "has no amount"),
        ({1: 2.0}, {"kind": "add", "amount": 1.0}, "not both"),
        (1, {}, "latents is 1; give a list"),
        ([1], {"kind": "add", "amount": float("nan")}, "latent 1 is nan; it must be finite"),
        ([], {}, "there are no latents"),
        ([48], {}, "latent 48 does not exist"),
        ([-1], {}, "latent -1 does not exist"),
        ([1, 1], {}, "latent 1 is named twice"),
    ],
)
def test_bad_edits_raise_before_anything_runs(llama, latents, arguments, said):
    with (
        pytest.raises(pp.PersonaProbeError, match=said),
        steer_latents(llama, make_sae(), LatentEdit(latents, **arguments)),
    ):
        pytest.fail("nothing was refused")


@pytest.mark.parametrize(
    ("reader", "edits", "scope", "said"),
    [
        (make_sae, [None, None], "generation", "no dialogue has an intervention"),
        (make_sae, STRONG, "answer", "unknown scope 'answer'"),
        (lambda: make_sae(d_in=8), STRONG, "generation", "reads vectors of width 8"),
        (lambda: Sae(make_inner(), 3, "deep", {}), STRONG, "generation", "layers 0 to 2"),
    ],
)
def test_bad_settings_raise_before_anything_runs(llama, reader, edits, scope, said):
    with pytest.raises(pp.PersonaProbeError, match=said), steer_latents(llama, reader(), edits, scope=scope):
        pytest.fail("nothing was refused")


def test_coefficients_are_linear_in_the_activation():
    assert LatentEdit({4: 2.5}, "clamp").coefficients(2.5) == (0.0, 2.5)
    assert LatentEdit([4], "ablate").coefficients(0.0) == (0.0, 0.0)
    assert LatentEdit([4], "add", 2.5).coefficients(2.5) == (1.0, 2.5)
    assert LatentEdit([4], "scale", 2.5).coefficients(2.5) == (2.5, 0.0)
