"""Every scope acts on exactly the tokens that it names, through every door and way of decoding."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache, StaticCache

import persona_probe as pp
from persona_probe.models.stream.boundary import Boundary
from persona_probe.models.stream.scope import parse_scope
from tests.activations.test_capture import TALKS
from tests.steering.watching import (
    ASKED,
    NAMED,
    greedy,
    moved_positions,
    named,
    padded,
    prompt_lengths,
    random_direction,
    watching,
)

LAYER = 1
LONG = {"do_sample": False, "max_new_tokens": 7, "min_new_tokens": 7}


@pytest.mark.parametrize("batch_size", [128, 2])
def test_each_dialogue_with_its_own_scope_while_decoding(any_model, batch_size):
    direction = random_direction(any_model)
    asked = [dialogue for dialogue in ASKED for _ in NAMED]
    scopes = list(NAMED) * len(ASKED)
    prompts = prompt_lengths(any_model, asked)
    with (
        pp.steer(any_model, [pp.Add(direction, LAYER, strength=2.0, scope=scope) for scope in scopes]),
        watching(any_model, LAYER) as forwards,
    ):
        greedy(any_model, asked, steps=5, batch_size=batch_size)
    found, read = moved_positions(forwards, prompts, 2.0 * torch.from_numpy(direction.at(LAYER)))
    for row, scope in enumerate(scopes):
        assert found[row] == named(scope, prompts[row], read[row]), (scope, row)


@pytest.mark.parametrize("scope", NAMED)
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"num_beams": 3},
        {"num_return_sequences": 2, "num_beams": 4},
        {"num_return_sequences": 2, "do_sample": True},
        {"prefill_chunk_size": 3},
    ],
    ids=lambda how: "-".join(how) or "plain",
)
def test_each_way_of_decoding_of_hugging_face(llama, scope, how):
    direction, prompts = random_direction(llama), prompt_lengths(llama, ASKED)
    torch.manual_seed(0)
    with (
        pp.steer(llama, direction, layers=LAYER, strength=2.0, scope=scope),
        watching(llama, LAYER) as forwards,
    ):
        llama.hf.generate(**padded(llama), **{**LONG, **how})
    found, read = moved_positions(forwards, prompts, 2.0 * torch.from_numpy(direction.at(LAYER)))
    assert [max(positions) for positions in read] == [prompt + 5 for prompt in prompts]
    assert found == [named(scope, prompt, positions) for prompt, positions in zip(prompts, read, strict=True)]


@pytest.mark.parametrize("scope", ["all", "generation", "response", "first_k:2", "window:1-4"])
@pytest.mark.parametrize(
    "how", [{"prompt_lookup_num_tokens": 3}, {"cache_implementation": "static"}, {"use_cache": False}]
)
def test_ways_of_decoding_agree_with_the_plain_one(llama, scope, how):
    ids = padded(llama, [pp.Dialogue.from_messages([{"role": "user", "content": "law law law. the law? the law."}])])
    with pp.steer(llama, random_direction(llama), layers=LAYER, strength=3.0, scope=scope):
        plain = llama.hf.generate(**ids, **LONG)
        assert torch.equal(llama.hf.generate(**ids, **LONG, **how), plain)
    assert not torch.equal(llama.hf.generate(**ids, **LONG), plain)


def test_beams_are_those_of_a_model_with_the_vector_built_in(any_model):
    """Where all tokens are moved at one layer, a bias in that layer does the same."""
    direction = random_direction(any_model)
    vector = 3.0 * torch.from_numpy(direction.at(LAYER))
    batch, how = padded(any_model), {**LONG, "num_beams": 3, "num_return_sequences": 2}

    def biased(_module, _args, output):
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    handle = any_model.stream.blocks[LAYER].register_forward_hook(biased, prepend=True)
    expected = any_model.hf.generate(**batch, **how)
    handle.remove()
    with pp.steer(any_model, [pp.Add(direction, LAYER, strength=3.0, scope="all")] * 3):
        assert torch.equal(any_model.hf.generate(**batch, **how), expected)
    assert not torch.equal(any_model.hf.generate(**batch, **how), expected)


@pytest.mark.parametrize("cache", [DynamicCache, StaticCache])
def test_going_on_from_a_cache_is_refused_and_an_empty_one_is_not(llama, cache):
    ids = padded(llama, ASKED[:1])["input_ids"]
    made = cache(config=llama.plain.config, **({"max_cache_len": 64} if cache is StaticCache else {}))
    with pp.steer(llama, random_direction(llama), layers=LAYER, strength=3.0):
        plain = llama.hf.generate(ids, **LONG)
        assert torch.equal(llama.hf.generate(ids, past_key_values=made, **LONG), plain)
        with pytest.raises(pp.PersonaProbeError, match="past_key_values contains tokens that were read earlier"):
            llama.hf.generate(plain, past_key_values=made, **LONG)


def test_bare_forwards_that_go_on_from_a_cache_are_steered_everywhere(llama):
    ids = padded(llama, ASKED[:1])["input_ids"]
    with pp.steer(llama, random_direction(llama), layers=LAYER, scope="all"), torch.no_grad():
        whole, cache = llama.hf(ids).logits, DynamicCache(config=llama.plain.config)
        parts = [llama.hf(part, past_key_values=cache).logits for part in ids.split(4, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-5)


def test_padding_without_a_mask_is_refused_and_the_bridge_knows_its_own(llama, monkeypatch):
    direction, batch = random_direction(llama), padded(llama)
    texts = ["Hi .", "What should I do about the fever ?"]
    with pp.steer(llama, direction, layers=LAYER, strength=2.0, scope="positions:0"):
        with pytest.raises(pp.PersonaProbeError, match="give attention_mask="):
            llama.hf.generate(batch["input_ids"], **LONG)
        told, original = [], llama.at_boundary
        monkeypatch.setattr(llama, "at_boundary", lambda boundary: (told.append(boundary), original(boundary))[1])
        llama.bridge.generate(texts, max_new_tokens=1, verbose=False, do_sample=False)
    lengths = [llama.bridge.to_tokens(text).shape[1] for text in texts]
    assert (told[0].starts - told[0].begins).tolist() == lengths


def test_a_turn_is_its_tokens_in_capture_and_in_generation(any_model):
    direction = random_direction(any_model)
    turns = ["You are kind.", "How do I handle the fever?", "Gladly, treat the fever.", "I have a question on law."]
    roles = ["system", "user", "assistant", "user"]
    long = [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=True)]
    dialogues = [pp.Dialogue.from_messages(long), ASKED[1], ASKED[0]]
    scopes = ["turn:2", "turn:-1", "turn:0"]
    texts = [turns[2], "Hi.", "How do I handle the fever?"]
    settings = [pp.Add(direction, LAYER, scope=scope) for scope in scopes]
    for run in (lambda: greedy(any_model, dialogues, steps=4), lambda: pp.capture(any_model, dialogues, span="all")):
        with pp.steer(any_model, settings), watching(any_model, LAYER) as forwards:
            run()
        found, _ = moved_positions(
            forwards, prompt_lengths(any_model, dialogues), torch.from_numpy(direction.at(LAYER))
        )
        for dialogue, positions, text in zip(dialogues, found, texts, strict=True):
            ids = any_model.template.encode(dialogue).input_ids
            assert sorted(positions) == list(range(min(positions), max(positions) + 1))
            assert any_model.tokenizer.decode([ids[p] for p in sorted(positions)]).strip() == text


def test_turns_are_looked_up_once_a_batch(llama, monkeypatch):
    from persona_probe.models.stream import boundary

    calls, find = [], boundary.turn_span
    monkeypatch.setattr(boundary, "turn_span", lambda *args: (calls.append(args), find(*args))[1])
    with pp.steer(llama, random_direction(llama), layers="all", scope="turn:0"):
        greedy(llama, steps=6)
    assert len(calls) == len(ASKED)


@pytest.mark.parametrize("scope", NAMED)
def test_finished_dialogues_padded_on_the_right(any_model, scope):
    direction = random_direction(any_model)
    prompts = prompt_lengths(any_model, TALKS)
    with (
        pp.steer(any_model, direction, layers=LAYER, scope=scope),
        watching(any_model, LAYER) as forwards,
    ):
        pp.capture(any_model, TALKS, span="all")
    found, _ = moved_positions(forwards, prompts, torch.from_numpy(direction.at(LAYER)))
    for dialogue, prompt, positions in zip(TALKS, prompts, found, strict=True):
        encoded = any_model.template.encode(dialogue)
        # The answer is over: what decides what comes after it is no longer in scope, and neither is padding.
        end = len(encoded.input_ids) if scope in ("all", "prompt", "positions:0,-2") else encoded.response_end
        end -= scope in ("generation", "first_k:2", "window:1-4", "last_prompt_token")
        assert positions == named(scope, prompt, range(end))


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("positions:0,900", "no position 900 in dialogue.*tokens"),
        ("positions:-900", "no position -900"),
        ("turn:5", "has no turn 5; it has 2"),
        ("turn:-3", "has no turn -3"),
    ],
)
def test_a_position_or_turn_that_is_not_there_raises_before_a_token_is_written(llama, scope, said):
    with pp.steer(llama, random_direction(llama), layers=LAYER, scope=scope), watching(llama, LAYER) as forwards:
        with pytest.raises(pp.PersonaProbeError, match=said):
            pp.capture(llama, TALKS, span="all")
        assert not forwards


@pytest.mark.parametrize(
    "scope",
    ["", "all:1", "first_k", "first_k:0", "first_k:-1", "window:4-4", "window:4", "positions:", "turn:a", "answer"],
)
def test_bad_scopes_are_refused(llama, scope):
    with pytest.raises(pp.PersonaProbeError, match=r"unknown scope|contains no token"):
        pp.Add(random_direction(llama), LAYER, scope=scope)
    for good in [*NAMED, "turn:-1", "positions:0, -2"]:
        assert parse_scope(str(parse_scope(good))) == parse_scope(good)


def test_a_turn_of_bare_ids_is_unknown(llama):
    with (
        pp.steer(llama, random_direction(llama), layers=LAYER, scope="turn:0"),
        pytest.raises(pp.PersonaProbeError, match="bare token ids do not say where turns begin"),
    ):
        llama.hf.generate(**padded(llama), **LONG)


def test_a_mask_of_some_rows_is_that_of_all(llama):
    encoded = llama.encode(TALKS)
    boundary = Boundary.of_dialogues(encoded, template=llama.template)
    for scope in [*NAMED, "turn:0"]:
        whole = boundary.mask(parse_scope(scope), 2, 20)
        np.testing.assert_array_equal(boundary.mask(parse_scope(scope), 2, 20, np.array([2, 0])), whole[[2, 0]])


def test_more_dialogues_than_interventions_raise_before_a_token_is_written(llama):
    settings = [pp.Add(random_direction(llama), LAYER)] * 2
    boundary = Boundary.of_prompts([4, 4], 4, rows=[0, 1], total=3)
    with (
        pp.steer(llama, settings),
        pytest.raises(pp.PersonaProbeError, match="given 2 interventions, but 3 dialogues are being read"),
        llama.at_boundary(boundary),
    ):
        llama.hf(torch.ones(2, 4, dtype=torch.long))
