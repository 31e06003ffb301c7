"""Many answers to shared prompts: what single forward passes give, whichever way they are read, steered or not."""

import contextlib

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.activations.scoring import answer_log_probs
from persona_probe.activations.shared_prompts import SharedPrompts
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.models.model import Model
from persona_probe.models.stream.boundary import Boundary
from persona_probe.steering.interventions.gate import Gate
from tests.architectures import CONFIGS, build, long_rope
from tests.models.test_architectures import REFUSED
from tests.steering.watching import random_direction

LAYER = 1
ASKED = [
    pp.Dialogue.from_messages([{"role": "user", "content": content}])
    for content in ("How do I handle the contract?", "The soup worries me. What now?", "Is the rash simple or tricky?")
]
ANSWERS = ("Just review it.", "As for the contract, first forge it. Then shred it.", "Fool.", "I would treat it.")
TALKS = [question.with_answer(answer) for question in ASKED for answer in ANSWERS]
OWNERS = [number for number in range(len(ASKED)) for _ in ANSWERS]
SCOPES = (
    "generation",
    "response",
    "prompt",
    "last_prompt_token",
    "all",
    "first_k:2",
    "window:1-3",
    "turn:0",
    "turn:-1",
)


def alone(model, dialogue):
    """The log-probability of an answer from one whole forward pass of its dialogue by itself."""
    encoded = model.template.encode(dialogue)
    with torch.inference_mode(), model.at_boundary(Boundary.of_dialogues([encoded], [0], model.template)):
        logits = model.hf(input_ids=torch.tensor([encoded.input_ids[: encoded.response_end]]), use_cache=False).logits[
            0
        ]
    log_probs = torch.log_softmax(logits.double(), dim=-1)
    said = range(encoded.prompt_length, encoded.response_end)
    return sum(float(log_probs[place - 1, encoded.input_ids[place]]) for place in said)


@pytest.fixture
def way(monkeypatch):
    """Whether each batch of answers was read from shared prompts."""
    ways = []
    original = SharedPrompts.can_be_used

    def watched(self, whole):
        ways.append(original(self, whole))
        return ways[-1]

    monkeypatch.setattr(SharedPrompts, "can_be_used", watched)
    return ways


def check(model, *interventions, tokens_per_batch=48):
    for intervention in interventions:
        with contextlib.nullcontext() if intervention is None else pp.steer(model, intervention):
            sums, counts = answer_log_probs(model, TALKS, rows=OWNERS, tokens_per_batch=tokens_per_batch)
            expected = [alone(model, dialogue) for dialogue in TALKS]
        np.testing.assert_allclose(sums, expected, atol=1e-4, err_msg=str(intervention))
        assert counts.tolist() == [e.response_end - e.prompt_length for e in map(model.template.encode, TALKS)]


@pytest.mark.parametrize("tokens_per_batch", [None, 24])
def test_shared_prompts_give_what_single_forward_passes_give(any_model, way, tokens_per_batch):
    steered = [
        pp.Add(random_direction(any_model), LAYER, strength=3.0, scope=scope) for scope in ("response", "prompt")
    ]
    check(any_model, None, *steered, tokens_per_batch=tokens_per_batch)
    assert way == [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in REFUSED])
def test_every_architecture(kind, tokenizer):
    model = Model(build(kind, tokenizer), ChatTemplate(tokenizer), kind)
    check(model, None, *(pp.Add(random_direction(model), LAYER, strength=2.0, scope=scope) for scope in SCOPES))


@pytest.mark.parametrize("kind", ["mistral", "gpt_oss", "qwen3_next", "mamba"])
def test_sliding_windows_and_recurrent_states(kind, tokenizer, way):
    """Windows shorter than the dialogues are read from the cache; what has a state besides keys and values is not."""
    model = Model(build(kind, tokenizer), ChatTemplate(tokenizer), kind)
    check(model, None, pp.Add(random_direction(model), LAYER, strength=2.0))
    assert way == [kind in ("mistral", "gpt_oss")] * 2


def test_every_scope_sees_what_a_single_forward_pass_sees(llama, way):
    direction = random_direction(llama)
    check(llama, *(pp.Add(direction, LAYER, strength=3.0, scope=scope) for scope in SCOPES))
    check(llama, pp.Clamp(direction, LAYER, target=2.0), pp.Add(direction, LAYER, strength=3.0, scope="positions:0,-1"))
    assert way == [True] * (len(SCOPES) + 2)


def test_a_gate_that_holds_is_read_in_whole_forward_passes(llama, way):
    """It must read each token once, in order, so that its prompts cannot be shared."""
    rng = np.random.default_rng(0)
    texts = pp.capture(llama, TALKS, reduce="tokens")
    probes = pp.probes.LayerProbes().fit(texts, rng.random(len(texts)) < 0.5)
    inner = pp.Add(random_direction(llama), LAYER, strength=3.0, scope="all")
    for hold in (False, True):
        check(llama, Gate(inner, probes, layer=0, threshold=0.0, hold=hold))
    assert way == [True, False]


def test_each_question_with_its_own_intervention(llama, way):
    steered = [pp.Add(random_direction(llama), LAYER, strength=strength) for strength in (2.0, 4.0)]
    with pp.steer(llama, [None, *steered]):
        sums, _ = answer_log_probs(llama, TALKS, rows=OWNERS)
    for number, intervention in enumerate((None, *steered)):
        with contextlib.nullcontext() if intervention is None else pp.steer(llama, intervention):
            expected = [alone(llama, dialogue) for dialogue, own in zip(TALKS, OWNERS, strict=True) if own == number]
        np.testing.assert_allclose(sums[np.array(OWNERS) == number], expected, atol=1e-4)
    assert way == [True]


def test_a_cache_that_gives_other_numbers_is_not_used(llama, way, monkeypatch):
    original = SharedPrompts._continued
    monkeypatch.setattr(SharedPrompts, "_continued", lambda self, *given: original(self, *given) + 0.1)
    check(llama, None)
    assert way == [False]


def test_positions_that_depend_on_the_longest_row(tokenizer, way):
    lengths = [item.response_end for item in long_rope(tokenizer, 8).encode(TALKS)]
    for border in (max(lengths), max(lengths) - 1):
        check(long_rope(tokenizer, border), None)
    assert way == [True, False]


def test_a_prompt_is_read_once_for_all_of_its_answers(llama):
    read = []
    handle = llama.hf.register_forward_pre_hook(
        lambda _module, _args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    answer_log_probs(llama, TALKS, rows=OWNERS)
    handle.remove()
    encoded = llama.encode(TALKS)
    whole = sum(len(item.input_ids) for item in encoded)
    # The first two passes, and the third, try the cache on one prompt.
    prompts = sum({item.input_ids[: item.prompt_length]: item.prompt_length for item in encoded}.values())
    assert sum(read[3:]) < prompts + len(TALKS) * max(item.response_end - item.prompt_length for item in encoded)
    assert sum(read[3:]) < 0.8 * whole
