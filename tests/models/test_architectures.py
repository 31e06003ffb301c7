"""Every architecture, the same promises: what is read is what Hugging Face computes, and steering is exact."""

import inspect
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.models.generation import stop_tokens
from persona_probe.models.model import Model
from tests.architectures import CONFIGS
from tests.formats import SHAPES, tokenizer_of
from tests.steering.watching import NAMED, moved_positions, named, prompt_lengths, watching

LAYER = 1
STEPS = 6
REFUSED = {
    # Hugging Face's recorder starts after block 0 instead of at the embedding, and a state that is no key-value cache
    # does not say how many tokens it has seen.
    "falcon_mamba": "layer 0 differ",
    "mamba": "layer 0 differ",
    "mamba2": "layer 0 differ",
    # Its stream is four streams side by side.
    "gemma3n": r"not \(batch, position, d_model\)",
    # Hugging Face's recurrence takes no mask, so that padding on the left, as for generation, runs into the text.
    "recurrent_gemma": "padding.*on the left",
}
FEW = (
    "llama",
    "gpt2",
    "gpt_neox",  # attention and MLP side by side
    "cohere",  # one norm for both; its bridge is refused
    "deepseek_v2",  # latent attention
    "gemma2",  # norms after what a block writes
    "gemma4_vision",  # wrapped with a vision tower
    "granite",  # scales what it writes
    "granite_moe_hybrid",  # Mamba and attention
    "mistral",  # sliding window
    "mixtral",  # experts
    "opt_350m",  # norms after the sum, and an embedding that is projected
    "qwen3_next",  # linear attention
)
"""Those that differ most in how they write their stream; the others are tested by ``make test-slow``."""
READ = [kind if kind in FEW else pytest.param(kind, marks=pytest.mark.slow) for kind in CONFIGS if kind not in REFUSED]
REFUSED_BRIDGES = {
    # TransformerLens spells it PhiMoE, Hugging Face Phimoe.
    "phimoe": "cannot bridge PhimoeForCausalLM",
    # TransformerLens needs torchvision for it.
    "qwen2_5_vl": "cannot bridge.*torchvision",
    # TransformerLens rotates the halves of a head, where these models rotate neighbouring pairs.
    "cohere": "does not compute the same",
    "cohere2": "does not compute the same",
    # Hugging Face adds the positional bias once with `sdpa` and twice with `eager`, which TransformerLens reproduces.
    "falcon_alibi": "does not compute the same",
    # TransformerLens expects rotary embeddings, which Granite 4's hybrids do without.
    "granite_moe_hybrid": "cannot bridge.*rotary_emb",
    # TransformerLens normalises queries and keys before rotating them, this model after.
    "hunyuan": "does not compute the same",
}
ROUNDING = {"gemma4": 2e-4, "gemma4_vision": 2e-4}
"""Gemma 4 does not scale its attention's logits down, which amplifies rounding; in float64 nothing is left of it."""
FINAL_NORMS = (
    "norm",
    "ln_f",
    "norm_f",
    "layer_norm",
    "embedding_norm",
    "final_layernorm",
    "final_layer_norm",
    "project_out",  # OPT-350m has this instead
)


def talk(asked, answer):
    return pp.Dialogue.from_messages([{"role": "user", "content": asked}, {"role": "assistant", "content": answer}])


TALKS = [
    talk("How do I handle the fever?", "Gladly, treat the fever."),
    talk("Hi.", "Hello there, what should I do about the very long answer that follows the mortgage?"),
    talk("I have a question on law. It is about the contract.", "Review it."),
]


@pytest.fixture(scope="module", params=READ)
def model(request, folders):
    return pp.load(folders(request.param))


@pytest.fixture(scope="module")
def direction(model):
    vectors = np.random.default_rng(0).normal(size=(model.n_layers, model.d_model))
    return pp.Direction.from_vectors(model, vectors)


@pytest.fixture
def kind_in_shape(model):
    """The same weights with another tokenizer, whose template has a shape."""

    def dressed(shape):
        return Model(model.hf, ChatTemplate(tokenizer_of(SHAPES[shape])), f"{model.name} as {shape}")

    return dressed


def tokens(model, dialogue):
    """The whole dialogue's ids, and how many of them come before its answer."""
    render = model.tokenizer.apply_chat_template
    whole = render(dialogue.as_messages(), tokenize=True, return_dict=False)
    asked = dialogue.without_answer().as_messages()
    prompt = render(asked, tokenize=True, add_generation_prompt=True, return_dict=False)
    assert whole[: len(prompt)] == prompt
    return whole, len(prompt)


def generation_span(model, dialogue):
    """From the last prompt token to the answer's last token but one; the template ends with an end-of-turn token."""
    whole, start = tokens(model, dialogue)
    return slice(start - 1, len(whole) - 2)


def alone(model, dialogue):
    return torch.tensor([tokens(model, dialogue)[0]])


def reported(model, dialogue):
    """Hugging Face's own hidden states of one dialogue, alone and unpadded: ``(position, d_model)`` a layer."""
    with torch.inference_mode():
        output = model.hf(input_ids=alone(model, dialogue), output_hidden_states=True, use_cache=False)
    return [state[0] for state in output.hidden_states[1:]]


def read(model, **inputs):
    """The residual stream that our hooks see in a forward of the backbone: ``(layer, row, position, d_model)``."""
    seen = {}
    with (
        torch.inference_mode(),
        model.stream.reading(lambda layer, hidden: seen.update({layer: hidden}), range(model.n_layers)),
    ):
        model.stream.backbone(**inputs, use_cache=False)
    return torch.stack([seen[layer] for layer in range(model.n_layers)])


def read_alone(model, dialogue):
    return read(model, input_ids=alone(model, dialogue))[:, 0]


def with_positions(model, ids, mask):
    """Padded ids with their mask and, where the backbone takes them, the position ids that the mask gives."""
    batch = {"input_ids": ids, "attention_mask": mask}
    if "position_ids" in inspect.signature(model.stream.backbone.forward).parameters:
        batch["position_ids"] = (mask.cumsum(dim=1) - 1).clamp_min(0)
    return batch


def pad(model, rows, side):
    batch = model.tokenizer.pad({"input_ids": rows}, return_tensors="pt", padding_side=side)
    return with_positions(model, batch["input_ids"], batch["attention_mask"])


def capture_by_position(model, dialogue, layer):
    """What is in the stream at ``layer`` while `capture` reads ``dialogue``: ``(position, d_model)``."""
    seen = []
    with model.stream.reading(lambda _, hidden: seen.append(hidden[0]), [layer]):
        pp.capture(model, [dialogue], layers=layer)
    return seen[0].clone()


def final_norm(model):
    """The module beside the list of blocks through which Hugging Face sends its last hidden state."""
    (beside,) = (
        dict(module.named_children())
        for module in model.plain.modules()
        if any(
            isinstance(child, torch.nn.ModuleList) and child[0] is model.stream.blocks[0] for child in module.children()
        )
    )
    (found,) = (module for name, module in beside.items() if name in FINAL_NORMS)
    return found


def kind_of(model):
    return Path(model.name).name


def rounding(model):
    return ROUNDING.get(kind_of(model), 1e-5)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_correctly_is_refused(kind, folders):
    with pytest.raises(pp.PersonaProbeError, match=REFUSED[kind]):
        pp.load(folders(kind))


def test_capture_is_hugging_faces_hidden_states(model):
    captured = pp.capture(model, TALKS).values
    for row, dialogue in enumerate(TALKS):
        span = generation_span(model, dialogue)
        for layer, state in enumerate(reported(model, dialogue)[:-1]):
            np.testing.assert_allclose(captured[row, layer], state[span].mean(dim=0), rtol=0, atol=1e-5)


def test_the_last_layer_is_read_before_the_final_norm(model):
    for dialogue in TALKS:
        with torch.inference_mode():
            normed = final_norm(model)(read_alone(model, dialogue)[-1])
        torch.testing.assert_close(normed, reported(model, dialogue)[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(model, side):
    rows = [tokens(model, dialogue)[0] for dialogue in TALKS]
    padded = read(model, **pad(model, rows, side))
    for row, dialogue in enumerate(TALKS):
        inside = slice(-len(rows[row]), None) if side == "left" else slice(len(rows[row]))
        torch.testing.assert_close(padded[:, row, inside], read_alone(model, dialogue), rtol=0, atol=rounding(model))


def test_a_batch_is_its_rows_in_any_order(model):
    together, single = (pp.capture(model, TALKS, tokens_per_batch=size).values for size in (1_000, 1))
    np.testing.assert_allclose(single, together, rtol=0, atol=rounding(model))
    for order in ([2, 0, 1], [1, 2, 0]):
        shuffled = pp.capture(model, [TALKS[row] for row in order]).values
        np.testing.assert_allclose(shuffled, together[order], rtol=0, atol=rounding(model))


def test_adding_a_vector_adds_exactly_that_and_hugging_face_sees_it(model, direction):
    vector = torch.from_numpy(direction.at(LAYER))
    plain, plain_reported = read_alone(model, TALKS[0]), reported(model, TALKS[0])
    with pp.steer(model, direction, layers=LAYER, kind="add", scope="all"):
        steered, steered_reported = read_alone(model, TALKS[0]), reported(model, TALKS[0])
    for before, after in ((plain, steered), (plain_reported, steered_reported)):
        torch.testing.assert_close(after[:LAYER], before[:LAYER], rtol=0, atol=0)
        torch.testing.assert_close(after[LAYER], before[LAYER] + vector, rtol=0, atol=1e-6)
        for layer in range(LAYER + 1, model.n_layers):
            assert ((after[layer] - before[layer]).abs().amax(dim=-1) > 1e-3).all()


def test_only_the_positions_of_the_scope_are_steered(model, direction):
    vector = torch.from_numpy(direction.at(LAYER))
    for dialogue in TALKS:
        expected = capture_by_position(model, dialogue, LAYER)
        expected[generation_span(model, dialogue)] += vector
        with pp.steer(model, direction, layers=LAYER, kind="add", scope="generation"):
            steered = capture_by_position(model, dialogue, LAYER)
        torch.testing.assert_close(steered, expected, rtol=0, atol=1e-6)


def test_clamping_sets_the_projection(model, direction):
    vector = torch.from_numpy(direction.at(LAYER))
    with pp.steer(model, direction, layers=LAYER, kind="clamp", target=1.5, scope="all"):
        steered = read_alone(model, TALKS[1])[LAYER]
    projection = steered @ (vector / vector.norm())
    torch.testing.assert_close(projection, torch.full_like(projection, 1.5), rtol=0, atol=1e-4)


def test_generation_is_steered_alike_with_and_without_the_cache(model, direction):
    prompts = [whole[:start] for whole, start in (tokens(model, dialogue) for dialogue in TALKS)]
    batch = model.tokenizer.pad({"input_ids": prompts}, return_tensors="pt", padding_side="left")
    width = batch["input_ids"].shape[1]

    def greedy(use_cache):
        """The ids, and what was in the stream at LAYER in each forward."""
        seen = []
        with model.stream.reading(lambda _, hidden: seen.append(hidden.clone()), [LAYER]):
            ids = model.hf.generate(
                **batch, do_sample=False, max_new_tokens=STEPS, min_new_tokens=STEPS, use_cache=use_cache
            )
        return ids, seen

    plain, _ = greedy(use_cache=True)
    with pp.steer(model, direction, layers=LAYER, strength=4.0, scope="generation"):
        cached, pieces = greedy(use_cache=True)
        uncached, wholes = greedy(use_cache=False)
    assert cached.tolist() == uncached.tolist() != plain.tolist()
    mask = torch.cat([batch["attention_mask"], torch.ones(len(TALKS), STEPS - 1, dtype=torch.long)], dim=1)
    # Below and at LAYER nothing but the intervention itself differs from the unsteered model.
    expected = read(model, **with_positions(model, cached[:, :-1], mask))[LAYER].clone()
    expected[:, width - 1 :] += 4.0 * torch.from_numpy(direction.at(LAYER))
    for steered in (torch.cat(pieces, dim=1), wholes[-1]):
        torch.testing.assert_close(steered[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*touched no token")  # a random model may end its answer at once
def test_each_dialogue_is_steered_at_its_own_scope_while_answers_are_written(model, direction):
    """All scopes in one batch of dialogues of different lengths, with and without beams."""
    asked = [dialogue.without_answer() for dialogue in TALKS for _ in NAMED]
    prompts, scopes = prompt_lengths(model, asked), list(NAMED) * len(TALKS)
    with (
        pp.steer(model, [pp.Add(direction, LAYER, strength=2.0, scope=scope) for scope in scopes]),
        watching(model, LAYER) as forwards,
    ):
        model.generate(asked, pp.Sampling(max_new_tokens=4, temperature=0))
    found, read = moved_positions(forwards, prompts, 2.0 * torch.from_numpy(direction.at(LAYER)))
    for prompt, scope, moved, seen in zip(prompts, scopes, found, read, strict=True):
        assert moved == named(scope, prompt, seen), scope


def test_each_dialogue_has_its_own_kind_as_if_it_were_alone(model, direction):
    other = pp.Direction.from_vectors(model, np.random.default_rng(1).normal(size=direction.vectors.shape))
    settings = [pp.Clamp(direction, LAYER, target=1.5), None, pp.Ablate(other, "all", scope="all")]
    plain = pp.capture(model, TALKS).values
    with pp.steer(model, settings):
        together = pp.capture(model, TALKS).values
        greedy = pp.Sampling(max_new_tokens=4, temperature=0)
        answers = [d.answer for d in model.generate([d.without_answer() for d in TALKS], greedy)]
    assert np.abs(together[1] - plain[1]).max() <= rounding(model)
    for row in (0, 2):
        with pp.steer(model, settings[row]):
            alone = pp.capture(model, [TALKS[row]]).values[0]
            (single,) = model.generate([TALKS[row].without_answer()], greedy)
        np.testing.assert_allclose(together[row], alone, rtol=0, atol=rounding(model))
        assert answers[row] == single.answer
    for layer in range(model.n_layers):
        unit = other.at(layer) / np.linalg.norm(other.at(layer))
        assert abs(together[2, layer] @ unit) <= 1e-5 * np.linalg.norm(plain[2, layer])


def test_hooks_are_gone_after_an_error_inside_the_context_and_inside_a_forward(model, direction):
    def hooks():
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.hf.modules())

    def stop(*_):
        raise RuntimeError("stop")

    ids = alone(model, TALKS[0])
    with torch.inference_mode():
        expected = model.hf(input_ids=ids).logits
    before = hooks()
    with pp.steer(model, direction, layers="all", scope="all"):
        model.hf(input_ids=ids)
        with model.stream.reading(stop, [LAYER]):
            assert hooks() > before
    with pytest.raises(RuntimeError, match="stop"), pp.steer(model, direction, layers="all", scope="all"):
        stop()
    with (
        pytest.raises(RuntimeError, match="stop"),
        pp.steer(model, direction, layers="all", scope="all"),
        model.stream.reading(stop, [LAYER]),
    ):
        model.hf(input_ids=ids)
    with pytest.raises(RuntimeError, match="stop"), model.stream.reading(stop, [LAYER]):
        pp.capture(model, TALKS)
    assert hooks() == before
    assert model.boundary is None
    assert "generate" not in vars(model.hf)
    with torch.inference_mode():
        torch.testing.assert_close(model.hf(input_ids=ids).logits, expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", ["llama2", "mistral", "channels", "words"])
def test_each_shape_of_chat_template_is_read_where_the_model_writes_and_stops_where_it_ends(kind_in_shape, shape):
    model, form = kind_in_shape(shape), SHAPES[shape]
    asked = talk("What should I eat?", "").without_answer()
    answered = asked.with_answer("Bread, sure.")
    prompt, encoded = (model.template.encode(dialogue) for dialogue in (asked, answered))
    written = encoded.input_ids[len(prompt.input_ids) :]
    assert model.tokenizer.decode(written) == form.learned.replace("Bread.", "Bread, sure.") + "\n" * (shape == "words")
    span = encoded.span("response")
    with torch.inference_mode():
        output = model.hf(input_ids=torch.tensor([encoded.input_ids]), output_hidden_states=True, use_cache=False)
    expected = output.hidden_states[LAYER + 1][0, span].mean(dim=0)
    values = pp.capture(model, [answered], layers=LAYER, span="response", sink_ratio=None).values[0, 0]
    torch.testing.assert_close(torch.tensor(values), expected, rtol=1e-3, atol=1e-4)
    ends = stop_tokens(model)
    assert model.tokenizer.eos_token_id in ends
    assert form.end is None or model.template.format.end in ends
    sampling = pp.Sampling(max_new_tokens=STEPS, temperature=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*never reached their final channel")
        (free,) = model.generate([asked], sampling)
    assert not set(model.template.format.control.values()) & {*free.answer.split()}


def test_the_bridge_reads_the_same_stream_or_is_refused(model):
    if why := REFUSED_BRIDGES.get(kind_of(model)):
        with pytest.raises(pp.PersonaProbeError, match=why):
            _ = model.bridge
        return
    names = [f"blocks.{layer}.hook_out" for layer in range(model.n_layers)]

    def bridged(ids, **more):
        with torch.inference_mode():
            _, cache = model.bridge.run_with_cache(ids, names_filter=lambda name: name in names, **more)
        return torch.stack([cache[name] for name in names])

    rows = [tokens(model, dialogue)[0] for dialogue in TALKS]
    batch = pad(model, rows, "right")
    padded = bridged(batch["input_ids"], attention_mask=batch["attention_mask"])
    for row, dialogue in enumerate(TALKS):
        expected = read_alone(model, dialogue)
        torch.testing.assert_close(bridged(alone(model, dialogue))[:, 0], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(padded[:, row, : len(rows[row])], expected, rtol=0, atol=1e-4)
