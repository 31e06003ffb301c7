import numpy as np
import pytest
import torch

import persona_probe as pp
from tests.activations.test_capture import TALKS

LAYER = 1


@pytest.fixture
def direction(any_model):
    vectors = np.random.default_rng(0).normal(size=(any_model.n_layers, any_model.d_model))
    return pp.Direction.from_vectors(any_model, vectors)


def per_token(model, dialogue):
    """The stream at LAYER as `capture` reads it, position by position."""
    seen = {}
    ids = torch.tensor([model.template.encode(dialogue).input_ids])
    with torch.inference_mode(), model.stream.reading(lambda layer, h: seen.update({layer: h.clone()}), [LAYER]):
        model.stream.backbone(input_ids=ids, use_cache=False)
    return seen[LAYER][0].numpy()


@pytest.mark.parametrize("scope", ["generation", "response", "prompt", "all"])
def test_a_scope_hits_exactly_the_tokens_it_names(any_model, direction, scope):
    for span in ("prompt", "response", "generation", "all"):
        plain = pp.capture(any_model, TALKS, span=span, layers=LAYER).values
        with pp.steer(any_model, direction, layers=LAYER, strength=2.0, scope=scope):
            steered = pp.capture(any_model, TALKS, span=span, layers=LAYER).values
        for row, dialogue in enumerate(TALKS):
            encoded = any_model.template.encode(dialogue)
            read, hit = (set(range(*encoded.span(name).indices(999))) for name in (span, scope))
            expected = 2.0 * len(read & hit) / len(read) * direction.at(LAYER)
            np.testing.assert_allclose((steered - plain)[row, 0], expected, atol=1e-4)


def greedy(model, **more):
    asked = [dialogue.without_answer() for dialogue in TALKS]
    return [d.answer for d in model.generate(asked, pp.Sampling(max_new_tokens=10, temperature=0, **more))]


@pytest.mark.parametrize("scope", ["generation", "response", "prompt", "all"])
def test_cached_generation_is_uncached_generation_and_batched_is_single(any_model, direction, scope):
    with pp.steer(any_model, direction, layers=LAYER, strength=3.0, scope=scope):
        cached, single = greedy(any_model), greedy(any_model, batch_size=1)
        any_model.hf.generation_config.use_cache = False
        try:
            uncached = greedy(any_model)
        finally:
            any_model.hf.generation_config.use_cache = True
    assert cached == single == uncached


def test_every_door_is_steered_and_closed_afterwards(any_model, direction):
    ids = any_model.tokenizer("<|begin|><|user|>Hi.<|end|><|assistant|>", return_tensors="pt", add_special_tokens=False)
    more = {"do_sample": False, "max_new_tokens": 6}
    plain = any_model.hf.generate(**ids, **more)
    logits = any_model.hf(**ids).logits
    short = pp.Sampling(max_new_tokens=6, temperature=0)
    target = any_model.generate([pp.Dialogue.from_messages([{"role": "user", "content": "Hi."}])], short)
    with pp.steer(any_model, direction, layers="all", strength=8.0):
        ours = any_model.generate([target[0].without_answer()], short)[0].answer
        theirs = any_model.hf.generate(**ids, **more)
        bridged = any_model.bridge.generate(ids["input_ids"], do_sample=False, max_new_tokens=6, verbose=False)
        assert ours != target[0].answer
        text = any_model.tokenizer.decode(theirs[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        assert text == ours
        assert bridged[0].tolist() == theirs[0].tolist()
        with pytest.raises(pp.PersonaProbeError, match="bare forward"):
            any_model.hf(**ids)
        with pytest.raises(pp.PersonaProbeError, match="bare forward"):
            any_model.bridge(ids["input_ids"])
    with pp.steer(any_model, direction, layers="all", strength=8.0, scope="all"):
        steered = any_model.hf(**ids).logits
        assert (steered - logits).abs().max() > 1e-2
        torch.testing.assert_close(any_model.bridge(ids["input_ids"]), steered, rtol=1e-4, atol=1e-4)
        recorded = any_model.hf(**ids, output_hidden_states=True).hidden_states[LAYER + 1]
    assert (recorded - any_model.hf(**ids, output_hidden_states=True).hidden_states[LAYER + 1]).abs().max() > 1
    assert any_model.hf.generate(**ids, **more).tolist() == plain.tolist()
    assert "generate" not in vars(any_model.hf)


def test_strength_zero_is_bit_identical(any_model, direction):
    plain = pp.capture(any_model, TALKS).values
    with pp.steer(any_model, direction, layers="all", strength=0.0):
        np.testing.assert_array_equal(pp.capture(any_model, TALKS).values, plain)


@pytest.mark.parametrize(("kind", "target", "expected"), [("clamp", 1.5, 1.5), ("ablate", None, 0.0)])
def test_clamp_sets_the_projection_and_ablate_takes_it_out(any_model, direction, kind, target, expected):
    with pp.steer(any_model, direction, layers=LAYER, kind=kind, target=target):
        steered = pp.capture(any_model, TALKS, layers=LAYER)
        with pp.steer(any_model, direction, layers=LAYER, kind=kind, target=target):
            twice = pp.capture(any_model, TALKS, layers=LAYER)
    np.testing.assert_allclose(direction.project(steered), expected, atol=1e-4)
    np.testing.assert_allclose(twice.values, steered.values, atol=1e-5)


def test_the_null_of_a_clamp_moves_equally_far_along_another_direction(any_model, direction):
    other = pp.Direction.from_vectors(any_model, np.random.default_rng(1).normal(size=direction.vectors.shape))
    plain = pp.capture(any_model, TALKS, layers=LAYER).values
    moved = {}
    for name, along in (("clamp", None), ("null", other)):
        with pp.steer(any_model, direction, layers=LAYER, kind="clamp", target=9.0, along=along):
            moved[name] = np.linalg.norm(pp.capture(any_model, TALKS, layers=LAYER).values - plain, axis=-1)
    np.testing.assert_allclose(moved["null"], moved["clamp"], rtol=1e-3)


def test_hooks_go_after_an_error_and_after_ctrl_c(any_model, direction):
    plain = greedy(any_model)
    for stop in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(stop), pp.steer(any_model, direction, layers=LAYER, strength=9.0):
            raise stop
    assert greedy(any_model) == plain
    assert any_model.boundary is None


def test_a_pair_is_steered_one_at_a_time(llama, tmp_path):
    from tests.models.test_loading import ROW

    direction = pp.Direction.from_vectors(llama, np.ones((3, 32)))
    after = pp.finetune(llama, [ROW], pp.LoraSettings(steps=1, batch=1), tmp_path / "a")
    plain = pp.capture(llama, TALKS).values
    with pp.steer(after, direction, layers=LAYER, strength=5.0):
        np.testing.assert_array_equal(pp.capture(llama, TALKS).values, plain)
        assert after.bridge is not None
        moved = pp.capture(after, TALKS, layers=LAYER).values
    assert np.abs(moved - pp.capture(after, TALKS, layers=LAYER).values).max() > 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layers": 7}, "layer 7 does not exist"),
        ({"layers": 1, "kind": "push"}, "unknown kind.*'push'"),
        ({"layers": 1, "scope": "answer"}, "unknown scope 'answer'"),
        ({"layers": 1, "kind": "clamp"}, "needs target="),
        ({"layers": 1, "target": 1.0}, "clamp.* only"),
        ({"layers": 1, "kind": "ablate", "strength": 0.5}, "does not take strength"),
        ({"layers": [0, 1], "kind": "clamp", "target": {0: 1.0}}, "no value for layer 1"),
    ],
)
def test_bad_settings_raise_before_anything_runs(llama, arguments, said):
    direction = pp.Direction.from_vectors(llama, np.ones((3, 32)))
    with pytest.raises(pp.PersonaProbeError, match=said), pp.steer(llama, direction, **arguments):
        pass
    foreign = pp.Direction(np.ones((3, 8), dtype=np.float32), (0, 1, 2))
    with pytest.raises(pp.PersonaProbeError, match="d_model=8"), pp.steer(llama, foreign, layers=1):
        pass


def test_right_padded_input_to_generate_is_refused(llama):
    direction = pp.Direction.from_vectors(llama, np.ones((3, 32)))
    batch = llama.tokenizer(["Hello", "Hello there friend"], return_tensors="pt", padding=True, padding_side="right")
    with pp.steer(llama, direction, layers=1), pytest.raises(pp.PersonaProbeError, match="pad on the left"):
        llama.hf.generate(**batch, max_new_tokens=2)


def test_the_last_prompt_token_is_steered_where_no_answer_follows_yet(llama):
    direction = pp.Direction.from_vectors(llama, np.ones((3, 32)))
    asked = [dialogue.without_answer() for dialogue in TALKS]
    plain = pp.capture(llama, asked, span="last_prompt_token", layers=LAYER).values
    with pp.steer(llama, direction, layers=LAYER, strength=2.0):
        steered = pp.capture(llama, asked, span="last_prompt_token", layers=LAYER).values
    np.testing.assert_allclose(steered - plain, 2.0, atol=1e-4)


def test_the_null_of_a_clamp_is_for_one_layer(llama):
    direction = pp.Direction.from_vectors(llama, np.ones((3, 32)))
    with (
        pytest.raises(pp.PersonaProbeError, match="defined for one layer"),
        pp.steer(llama, direction, layers="all", kind="clamp", target=1.0, along=direction),
    ):
        pass
