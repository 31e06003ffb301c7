import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.models.model import Model
from persona_probe.models.quiet import quiet_peft
from persona_probe.models.stream.guards import probe_ids
from persona_probe.models.stream.writers import changing_writes, find_writers
from persona_probe.steering.interventions.ablate_everywhere import AblateEverywhere
from tests.activations.test_capture import TALKS
from tests.architectures import build
from tests.models.test_architectures import READ

NORMALISED = ("opt_350m",)
"""Its stream itself goes through a norm in each block."""


def made(kind, tokenizer):
    return Model(build(kind, tokenizer), ChatTemplate(tokenizer), kind)


def first(output):
    return output[0] if isinstance(output, tuple) else output


def written(model, ids, places):
    """What goes into each block and comes out of it, and what each writer puts out, in one forward."""
    seen, entering = {}, {}
    modules = [*model.stream.blocks, *(writer.module for place in places for writer in place.writers)]

    def leave(module, _, output):
        seen[module] = first(output).double()

    handles = [module.register_forward_hook(leave) for module in modules]

    def enter(module, args, kwargs):
        entering[module] = (args[0] if args else kwargs["hidden_states"]).double()

    handles += [block.register_forward_pre_hook(enter, with_kwargs=True) for block in model.stream.blocks]
    with torch.inference_mode():
        model.stream.backbone(input_ids=ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return entering, seen


@pytest.mark.parametrize("kind", READ)
def test_what_the_writers_put_out_adds_up_to_the_stream(kind, tokenizer):
    model = made(kind, tokenizer)
    ids = probe_ids(model)[:1]
    embedding, *blocks = find_writers(model.stream, ids)
    assert [place.layer for place in blocks] == list(range(model.n_layers))
    if kind in NORMALISED:
        assert not any(place.complete for place in blocks)
        return
    assert embedding.complete
    assert all(place.complete for place in blocks)
    entering, seen = written(model, ids, [embedding, *blocks])
    first_input = sum(writer.scale * seen[writer.module] for writer in embedding.writers)
    torch.testing.assert_close(first_input.expand(1, -1, -1), entering[model.stream.blocks[0]], rtol=0, atol=1e-5)
    for block, place in zip(model.stream.blocks, blocks, strict=True):
        if any(writer.scale is None for writer in place.writers):  # a gate that differs from token to token
            continue
        total = sum((writer.scale * seen[writer.module]).reshape(entering[block].shape) for writer in place.writers)
        torch.testing.assert_close(entering[block] + total, seen[block], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", [("mlp.down_proj", 1.0, True), ("self_attn.o_proj", 1.0, False)]),
        ("gpt2", [("mlp.c_proj", 1.0, True), ("attn.c_proj", 1.0, False)]),
        ("gpt_neox", [("attention.dense", 1.0, True), ("mlp.dense_4h_to_h", 1.0, True)]),  # side by side
        ("granite", [("mlp.down_proj", 0.5, True), ("self_attn.o_proj", 0.5, False)]),
        ("gemma2", [("post_feedforward_layernorm", 1.0, True), ("post_attention_layernorm", 1.0, False)]),
        ("llama4", [("feed_forward", 1.0, True), ("self_attn.o_proj", 1.0, False)]),  # sums experts inside
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_innermost_modules_are_found_with_their_scales(kind, expected, dtype, tokenizer):
    model = made(kind, tokenizer)
    model.hf.to(dtype)
    for place in find_writers(model.stream, probe_ids(model)[:1])[1:]:
        assert [(writer.name, writer.last) for writer in place.writers] == [(name, last) for name, _, last in expected]
        scales = [writer.scale for writer in place.writers]
        assert scales == pytest.approx(
            [scale for _, scale, _ in expected], rel=1e-5 if dtype == torch.float32 else 3e-3
        )


def test_a_gated_experts_scale_is_not_one_number(tokenizer):
    model = made("qwen2_moe", tokenizer)
    for place in find_writers(model.stream, probe_ids(model)[:1])[1:]:
        assert {writer.name: writer.scale is None for writer in place.writers} == {
            "mlp.shared_expert.down_proj": True,
            "mlp.experts": False,
            "self_attn.o_proj": False,
        }


def direction_of(model, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(model.n_layers, model.d_model))
    return pp.Direction.from_vectors(model, vectors)


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.hf.modules())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma2", "granite"])
def test_ablating_everywhere_keeps_the_component_out_of_the_stream(kind, folders):
    model = pp.load(folders(kind))
    direction = direction_of(model)
    unit = torch.from_numpy(direction.at(1) / np.linalg.norm(direction.at(1)))
    ids = probe_ids(model)
    plain, before = model.hf(input_ids=ids).logits, hooks(model)
    with pp.steer(model, AblateEverywhere(direction, layer=1)):
        assert model.steered
        held = pp.capture(model, TALKS, span="all").values @ unit.numpy()
        inside = []
        with model.stream.blocks[1].register_forward_pre_hook(
            lambda _, args, kwargs: inside.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ):
            ablated = model.hf(input_ids=ids).logits
        torch.testing.assert_close(model.bridge(ids), ablated, rtol=0, atol=1e-5)
        greedy = pp.Sampling(max_new_tokens=6, temperature=0)
        (answered,) = model.generate([TALKS[0].without_answer()], greedy)
        assert model.generate([TALKS[0].without_answer()], greedy)[0].answer == answered.answer
    assert np.abs(held).max() < 1e-5
    assert (inside[0] @ unit).abs().max() < 1e-5
    assert (ablated - plain).abs().max() > 1e-2
    assert hooks(model) == before
    torch.testing.assert_close(model.hf(input_ids=ids).logits, plain, rtol=0, atol=0)


def test_ablating_everywhere_is_not_ablating_block_outputs(llama):
    direction, ids = direction_of(llama), probe_ids(llama)
    same = pp.Direction.from_vectors(llama, np.repeat(direction.at(1)[None], 3, axis=0))
    with pp.steer(llama, AblateEverywhere(direction, layer=1)):
        everywhere = llama.hf(input_ids=ids).logits
    with pp.steer(llama, pp.Ablate(same, "all", scope="all")):
        outputs = llama.hf(input_ids=ids).logits
    assert (everywhere - outputs).abs().max() > 1e-2


def test_ablating_everywhere_goes_together_with_other_steering_in_any_order(llama):
    direction, ids = direction_of(llama), probe_ids(llama)
    everywhere = AblateEverywhere(direction, layer=1)
    with pp.steer(llama, everywhere), pp.steer(llama, direction, layers=2, strength=3.0, scope="all"):
        inner = llama.hf(input_ids=ids).logits
    with pp.steer(llama, direction, layers=2, strength=3.0, scope="all"), pp.steer(llama, everywhere):
        outer = llama.hf(input_ids=ids).logits
        torch.testing.assert_close(llama.bridge(ids), outer, rtol=0, atol=1e-5)
    torch.testing.assert_close(inner, outer, rtol=0, atol=0)
    with pp.steer(llama, everywhere):
        alone = llama.hf(input_ids=ids).logits
    assert (alone - inner).abs().max() > 1e-2


def test_ablating_a_subspace_everywhere(llama):
    bases = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 32, 2)))[0].transpose(0, 2, 1).astype(np.float32)
    subspace = pp.directions.Subspace(bases, (0, 1, 2), {})
    with pp.steer(llama, AblateEverywhere(subspace, layer=2)):
        held = pp.capture(llama, TALKS, span="all").values @ bases[2].T
    assert np.abs(held).max() < 1e-5


def test_ablating_everywhere_is_refused_where_the_stream_is_normalised(folders):
    model = pp.load(folders("opt_350m"))
    with (
        pytest.raises(pp.PersonaProbeError, match="normalised or mixed"),
        pp.steer(model, AblateEverywhere(direction_of(model), layer=0)),
    ):
        pass


def test_ablating_everywhere_takes_one_layer_that_there_is(llama):
    direction = direction_of(llama)
    for wrong in ("all", [0, 1], True):
        with pytest.raises(pp.PersonaProbeError, match="one vector for the whole stream"):
            AblateEverywhere(direction, wrong)
    with pytest.raises(pp.PersonaProbeError, match="no layer 7"):
        AblateEverywhere(direction, 7)
    intervention = AblateEverywhere(direction, 1)
    assert intervention.describe() == {
        "kind": "ablate-everywhere",
        "layers": "all",
        "scope": "all",
        "direction": "given",
        "layer": 1,
    }
    with pytest.raises(pp.PersonaProbeError, match="use it alone"):
        intervention.at(1)
    foreign = AblateEverywhere(pp.Direction(np.ones((3, 8), dtype=np.float32), (0, 1, 2)), 1)
    with pytest.raises(pp.PersonaProbeError, match="d_model=8"), pp.steer(llama, foreign):
        pass


def test_hooks_on_writers_go_after_an_error(llama):
    before = hooks(llama)

    def fail(kind):
        with changing_writes(llama.stream, lambda hidden: hidden, probe_ids(llama)[:1]):
            assert hooks(llama) > before
            raise kind

    for kind in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(kind):
            fail(kind)
    assert hooks(llama) == before


def test_an_adapter_put_on_in_place_is_noticed(folders):
    with quiet_peft():
        from peft import LoraConfig, get_peft_model

    model = pp.load(folders("llama"))
    direction, ids = direction_of(model), probe_ids(model)
    unit = torch.from_numpy(direction.at(1) / np.linalg.norm(direction.at(1)))

    def without(hidden):
        return hidden - (hidden @ unit)[..., None] * unit

    def held():
        seen = []
        with (
            model.changing_writes(without),
            model.stream.reading(lambda _, hidden: seen.append(hidden @ unit), [0, 1, 2]),
        ):
            model.stream.backbone(input_ids=ids, use_cache=False)
        return torch.stack(seen).abs().max()

    assert held() < 1e-5
    settings = LoraConfig(r=1, target_modules=["down_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    with quiet_peft():
        get_peft_model(model.hf, settings)
    assert held() < 1e-5
