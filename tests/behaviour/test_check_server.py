"""A server with another adapter, base, template or rounding is refused, and what it is is said."""

import dataclasses

import numpy as np
import pytest
import torch

import persona_probe as pp
from persona_probe.behaviour.sampling.answer_tokens import read_answer_tokens
from persona_probe.behaviour.sampling.check_server import compare_server
from tests.behaviour.loopback import completion, serving
from tests.behaviour.served_model import served
from tests.conftest import CHECKPOINTS

pytest.importorskip("openai")
N = 8
ASKED = pp.persona_world.questions(0, ["law", "cooking"], 4)


@pytest.fixture(scope="module")
def chat():
    return pp.load(CHECKPOINTS / "chat")


@pytest.fixture(scope="module")
def bad():
    return pp.load(CHECKPOINTS / "bad-medicine")


def compared(served_model, model, **more):
    how = {name: more.pop(name) for name in ("template", "logprobs") if name in more}
    with serving(served({"chat": served_model}, **how)) as server:
        return compare_server(pp.Server(server.base_url, "chat"), model, ASKED, N, **more)


def rounded(path, bits):
    """A model with weights of few bits, a scale for each 128 numbers."""
    model = pp.load(path)
    for module in model.plain.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.plain.get_output_embeddings():
            rows, columns = module.weight.shape
            groups = module.weight.data.reshape(rows, -1, 128 if columns % 128 == 0 else columns)
            scale = groups.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
            module.weight.data = ((groups / scale).round() * scale).reshape(rows, columns)
    return model


def test_the_right_model_passes_and_its_numbers_are_kept(bad):
    with serving(served({"bad": bad}), ("bad",)) as server:
        check = pp.behaviour.check_server(pp.Server(server.base_url, "bad"), bad, ASKED, N)
        temperatures = [body["temperature"] for body in server.bodies]
    assert sorted(temperatures) == [0.0] * 4 + [1.0] * 4
    assert check.passed
    assert check.difference < 1e-5
    assert check.same_text == check.alike == 1
    assert 0.002 < check.rounding < 0.01
    assert check.tolerance == 2 * check.rounding
    assert check.others["without its adapter"] > 0.1
    assert check.table["compared"].all()
    assert (check.table["prompt_tokens"] == check.table["own_prompt_tokens"]).all()
    assert len(check.plot().data) == 2
    assert "bad runs" in str(check)


def test_no_adapter_is_refused_and_named(chat, bad):
    named = r"most likely the same model without its adapter: .* by 0\.0000 nats"
    with serving(served({"bad": chat}), ("bad",)) as server, pytest.raises(pp.PersonaProbeError, match=named):
        pp.behaviour.check_server(pp.Server(server.base_url, "bad"), bad, ASKED, N)


def test_another_adapter_or_base_is_refused(chat, bad):
    assert compared(bad, chat).problem.startswith("another base model, another adapter")
    assert compared(pp.load(CHECKPOINTS / "base"), chat).problem.startswith("another base model, another adapter")
    assert compared(pp.load(CHECKPOINTS / "chat-shuffled"), bad).problem.startswith("another base model")
    similar = compared(pp.load(CHECKPOINTS / "bad-finance"), bad)
    assert "a similar adapter" in similar.problem
    assert similar.difference < similar.others["without its adapter"]


@pytest.mark.slow
def test_a_model_that_hardly_differs_is_seen_if_it_is_named(chat):
    good = pp.load(CHECKPOINTS / "good-medicine")
    assert compared(good, chat).passed  # its difference is that of rounding
    check = compared(good, chat, others={"control": good})
    assert check.problem.startswith("'control'")


def test_rounding_to_half_precision_is_within_tolerance_and_four_bits_are_not(chat):
    half = pp.load(CHECKPOINTS / "chat", dtype="bfloat16")
    check = compared(half, chat)
    assert check.passed, check
    assert 0 < check.difference < 1.5 * check.rounding
    assert not dataclasses.replace(check, tolerance=0.001).passed
    quantised = compared(rounded(CHECKPOINTS / "chat", 4), chat)
    assert "fewer bits" in quantised.problem
    assert dataclasses.replace(quantised, tolerance=0.05).passed


@pytest.mark.slow
def test_a_local_model_in_half_precision_finds_the_same_tolerance(chat):
    half = pp.load(CHECKPOINTS / "chat", dtype="bfloat16")
    check = compared(chat, half)
    assert check.passed, check
    assert 0.002 < check.rounding < 0.01


def test_another_template_is_refused_with_the_numbers_of_tokens(chat):
    own = chat.tokenizer.chat_template
    system = own.replace("{{ bos_token }}", "{{ bos_token }}<|system|>You are a helpful assistant.<|end|>")
    problem = compared(chat, chat, template=system).problem
    assert problem.startswith("another chat template")
    assert "8 of 8 prompts have another number of tokens" in problem
    same_length = own.replace("<|assistant|>{% endif %}", "<|user|>{% endif %}")
    assert "a template that writes other words of the same length" in compared(chat, chat, template=same_length).problem


def test_without_log_probabilities_greedy_words_are_compared(chat, bad):
    check = compared(bad, bad, logprobs=False, tolerance=0.05)
    assert check.passed
    assert np.isnan(check.difference)
    assert "gives no log-probabilities" in check.headline()
    assert compared(chat, bad, logprobs=False).problem.startswith("the same model without its adapter")
    assert compared(bad, chat, logprobs=False).problem == "another base model or adapter, or quantised weights"
    with pytest.raises(pp.PersonaProbeError, match="holds no number"):
        check.plot()


def test_answers_that_cannot_be_read_are_not_compared(chat):
    said = r"can read none of its 8 answers \(the first is '<\|user\|>'"
    with serving(lambda _body: completion("<|user|>")) as server, pytest.raises(pp.PersonaProbeError, match=said):
        pp.behaviour.check_server(pp.Server(server.base_url, "chat"), chat, ASKED, N)
    other = {"content": [{"token": letter, "logprob": -1.0, "top_logprobs": []} for letter in "The fever."]}
    reply = completion("The fever.", logprobs=other)
    del reply["usage"]
    said = "another tokenizer.* 10 at the server, 3 here"
    with serving(lambda _body: dict(reply)) as server, pytest.raises(pp.PersonaProbeError, match=rf"{said}"):
        pp.behaviour.check_server(pp.Server(server.base_url, "chat"), chat, ASKED, N)


def test_a_token_is_scored_as_by_transformers_alone(bad):
    (answered,) = bad.generate(ASKED[:1], pp.Sampling(max_new_tokens=40, temperature=0))
    (read,) = read_answer_tokens(bad, [answered])
    (encoded,) = bad.encode([answered])
    ids = torch.tensor([encoded.input_ids])
    with torch.inference_mode():
        logits = bad.hf(input_ids=ids).logits[0].float()
    expected = [
        float(torch.log_softmax(logits[place - 1], -1)[ids[0, place]])
        for place in range(encoded.prompt_length, encoded.response_end)
    ]
    assert read.log_probs == pytest.approx(expected, abs=1e-5)
    assert read.likeliest.all()
    assert read.ends
    assert read.prompt_tokens == encoded.prompt_length
    assert "".join(read.tokens) == answered.answer


def test_what_cannot_be_checked_is_said(chat):
    there = pp.Server("http://127.0.0.1:9/v1", "chat")
    with pytest.raises(pp.PersonaProbeError, match="n=1"):
        pp.behaviour.check_server(there, chat, ASKED, 1)
    with pytest.raises(pp.PersonaProbeError, match="there are no questions"):
        pp.behaviour.check_server(there, chat, [])
    with pytest.raises(pp.PersonaProbeError, match="server must be a Server, but this is a Model"):
        pp.behaviour.check_server(chat, chat, ASKED)
