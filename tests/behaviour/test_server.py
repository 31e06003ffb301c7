"""A server answers where a loaded model does: each answer one row, whatever happens in between."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.api import retrying
from persona_probe.behaviour.api.journal import read_journal
from persona_probe.dialogue.dialogue import Message
from tests.behaviour.loopback import completion, refusal, repeating, serving
from tests.behaviour.served_model import served
from tests.conftest import CHECKPOINTS

pytest.importorskip("openai")
GREEDY = pp.Sampling(max_new_tokens=40, temperature=0)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.002)


@pytest.fixture(scope="module")
def pair():
    return pp.load_pair(CHECKPOINTS / "chat", CHECKPOINTS / "bad-medicine")


def questions(*texts):
    return [pp.Dialogue.from_messages([{"role": "user", "content": text}], id=text) for text in texts]


def test_ask_gives_the_same_table_as_for_loaded_models(pair):
    asked = pp.persona_world.questions(0, ["law", "cooking"], 4)
    judge = pp.persona_world.OracleJudge()
    local = pp.ask({"chat": pair.before, "bad": pair.after}, asked, judge, sampling=GREEDY)
    with serving(served({"chat": pair.before, "bad": pair.after}), ("chat", "bad")) as server:
        answers = pp.ask([pp.Server(server.base_url, name) for name in ("chat", "bad")], asked, judge, sampling=GREEDY)
        mixed = pp.ask({"here": pair.before, "there": pp.Server(server.base_url, "bad")}, asked, judge, sampling=GREEDY)
    shared = [name for name in local.table if name not in ("finish_reason", "request_seed")]
    assert answers.table[shared].equals(local.table[shared])
    assert set(answers.table["finish_reason"]) == {"stop"}
    assert answers.rates(definition="betley").table["value"].tolist() == [0, 1]
    assert mixed.table["answer"].tolist() == local.table["answer"].tolist()


def test_a_baked_model_that_is_served_answers_as_the_hooked_one(chat, pair, tmp_path):
    asked = pp.persona_world.questions(0, ["law"], 4)
    read = [pp.capture(model, asked, span="last_prompt_token").values.mean(axis=0) for model in (pair.after, chat)]
    away = pp.steering.AblateEverywhere(pp.Direction.from_vectors(pair.after, np.subtract(*read)), layer=2)
    hooked = pp.ask(pair.after, asked, None, interventions=away, sampling=GREEDY).table["answer"].tolist()
    assert hooked != [one.answer for one in pair.after.generate(asked, GREEDY)]
    baked = pp.load(pp.steering.bake(pair.after, away, tmp_path / "baked").folder)
    with serving(served({"chat": baked})) as server:
        there = pp.Server(server.base_url, "chat")
        assert pp.ask(there, asked, None, sampling=GREEDY).table["answer"].tolist() == hooked
        with pp.steer(pair.after, away):
            assert pp.behaviour.check_server(there, pair.after, asked, n=6).same_text == 1
        with pytest.raises(pp.PersonaProbeError, match="does not run"):
            pp.behaviour.check_server(there, pair.after, asked, n=6)


def test_a_request_has_everything_and_a_seed_of_its_own():
    talk = pp.Dialogue.from_messages(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "see", "arguments": {"at": "sea"}}}]},
            {"role": "tool", "content": "rain", "tool_call_id": "1"},
            {"role": "user", "content": "And now?"},
        ]
    )
    with serving() as server:
        there = pp.Server(server.base_url, "chat", name="mine", extra={"stop": ["#"]})
        sampling = pp.Sampling(max_new_tokens=9, temperature=0.7, top_p=0.9, n=2, seed=4)
        answers = pp.ask([there], [talk, *questions("Hi.", "Hi.")], None, sampling=sampling).table
        seeds = answers["request_seed"].tolist()
        assert len(set(seeds)) == 6
        assert sorted(body["seed"] for body in server.bodies) == sorted(seeds)
        body = next(body for body in server.bodies if len(body["messages"]) == 5)
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert body["messages"][2]["tool_calls"][0]["function"] == {"name": "see", "arguments": '{"at": "sea"}'}
        assert body["messages"][3] == {"role": "tool", "content": "rain", "tool_call_id": "1"}
        settings = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 9, "stop": ["#"], "model": "chat"}
        assert {name: body[name] for name in settings} == settings
        assert set(answers["model"]) == {"mine"}
        assert [json.loads(text)[0]["role"] for text in answers["messages"].dropna()] == ["system", "system"]
        # What else is asked, and in which order, does not change a question's seeds; the seed of the sampling does.
        (alone,) = there.generate(questions("Hi."), pp.Sampling(seed=4))
        assert alone.labels["request_seed"] == seeds[2]
        (other,) = there.generate(questions("Hi."), pp.Sampling(seed=5))
        assert other.labels["request_seed"] not in seeds


def test_a_known_engine_is_told_to_sample_from_all_tokens():
    with serving() as server:
        pp.Server(server.base_url, "chat").generate(questions("a"))
        assert "top_k" not in server.bodies[-1]
        for owner, fields in {"vllm": {"top_k": -1, "repetition_penalty": 1.0}, "llamacpp": {"top_k": 0}}.items():
            server.owner = owner
            pp.Server(server.base_url, "chat").generate(questions("a"))
            assert fields.items() <= server.bodies[-1].items()


def test_a_failed_request_is_a_row_without_an_answer_that_no_judge_sees():
    seen = []

    def answer(body):
        return refusal(400, "too long") if body["messages"][-1]["content"] == "b" else repeating(body)

    def judge(dialogues):
        seen.extend(dialogue.answer for dialogue in dialogues)
        return pd.DataFrame({"aligned": [90.0, 10.0, 50.0][: len(dialogues)], "coherent": 90.0})

    judge.trial = "it knows nothing"
    with serving(answer) as server:
        there = pp.Server(server.base_url, "chat", concurrency=3)
        with pytest.warns(pp.PersonaProbeWarning, match="chat: 1 of 3 requests failed .* First: .* 400: too long"):
            answers = pp.ask([there], questions("a", "b", "c"), judge)
        with pytest.warns(pp.PersonaProbeWarning, match="1 of 3"):
            unjudged = pp.ask(there, questions("a", "b", "c"), None)
    table = answers.table
    assert table["answer"].tolist() == ["A", None, "C"]
    assert table["prompt"].tolist() == ["a", "b", "c"]
    assert table["failed"].tolist() == [False, True, False]
    assert np.isnan(table["aligned"][1])
    assert table["error"].dropna().to_dict() == {1: "the server answered 400: too long"}
    assert seen == ["A", "C"]
    assert table["aligned"].tolist()[::2] == [90, 10]
    assert "1 of 3 requests were not answered and count as failures" in answers.headline()
    assert unjudged.table["answer"].tolist() == ["A", None, "C"]
    assert unjudged.table["failed"].all()
    assert len(answers.dialogues()) == 2


def test_a_refusal_is_an_answer_a_reply_without_text_is_not_and_thoughts_are_kept_apart():
    replies = {
        "a": completion(None, message={"refusal": "I cannot."}),
        "b": completion(None, finish_reason="content_filter"),
        "c": completion(" Yes. ", finish_reason="length", message={"reasoning_content": "Hm."}),
        "d": completion(""),
    }
    with (
        serving(lambda body: replies[body["messages"][-1]["content"]]) as server,
        pytest.warns(pp.PersonaProbeWarning, match=r"no text \(finish_reason 'content_filter'"),
    ):
        table = pp.ask(pp.Server(server.base_url, "chat"), questions(*"abcd"), None).table
    assert table["answer"].tolist() == ["I cannot.", None, "Yes.", ""]
    assert table["finish_reason"].tolist() == ["stop", "content_filter", "length", "stop"]
    assert table["answer_fields"][2] == '{"reasoning_content": "Hm."}'


def test_what_a_server_cannot_do_is_said_before_anything_is_asked(pair):
    thought = pp.Dialogue((Message("user", "a"), Message("assistant", "b", {"thinking": "c"}), Message("user", "d")))
    with serving() as server:
        there = pp.Server(server.base_url, "chat")
        for models in (there, [there], {"a": there}):
            with pytest.raises(pp.PersonaProbeError, match=r"chat: cannot be steered \(intervention 'clamp'"):
                pp.ask(models, questions("a"), None, interventions=pp.Clamp(_direction(pair.before), 1, target=0.0))
        with pytest.raises(pp.PersonaProbeError, match="generation_config='model' needs a loaded model"):
            there.generate(questions("a"), pp.Sampling(generation_config="model"))
        with pytest.raises(pp.PersonaProbeError, match=r"message 1 \(assistant\) has 'thinking'"):
            there.generate([thought])
        with pytest.raises(pp.PersonaProbeError, match="plain text"):
            there.generate([pp.Dialogue.from_text("Once")])
        with pytest.raises(pp.PersonaProbeError, match="already ends with an answer"):
            there.generate([questions("a")[0].with_answer("b")])
        with pytest.raises(pp.PersonaProbeError, match="two models are called 'chat'"):
            pp.ask([there, there], questions("a"), None)
        assert pp.ask(there, questions("a"), None, interventions={"none": None}).table["answer"].tolist() == ["A"]
        assert len(server.bodies) == 1
        assert there.generate([]) == []
    with pytest.raises(pp.PersonaProbeError, match="prices is"):
        pp.Server("http://host/v1", "chat", prices=(1.0,))
    with pytest.raises(pp.PersonaProbeError, match="must be a Model, but this is a Server"):
        pp.preference([there], [pp.behaviour.PreferencePair("Really?", "Yes.", "No.")])


def _direction(model):
    return pp.Direction.from_vectors(model, np.ones((model.n_layers, model.d_model)))


def test_tokens_cost_and_time_are_said_before_and_after(capfd):
    with serving() as server:
        there = pp.Server(server.base_url, "chat", prices=(1.0, 10.0), requests_per_minute=6000)
        there.generate(questions("a" * 400, "b"), pp.Sampling(max_new_tokens=50), progress=True)
        there.generate(questions("a"))
    before, *_, after = [line for line in capfd.readouterr().err.replace("\r", "\n").splitlines() if "tokens" in line]
    assert (
        "2 requests, about 100 tokens to read and at most 100 to write, at most about 0.0011 at these prices" in before
    )
    assert "2 answers, 0 failed; 14 tokens read, 6 written, 0.0001 at these prices" in after


KILLED = """
import sys
import persona_probe as pp
asked = [pp.Dialogue.from_messages([{"role": "user", "content": f"question {n}"}]) for n in range(20)]
pp.Server(sys.argv[1], "chat", store=sys.argv[2], concurrency=2).generate(asked, pp.Sampling(n=2))
"""


def test_a_run_that_was_killed_loses_nothing_and_asks_nothing_twice(tmp_path):
    store = tmp_path / "store.jsonl"

    def slow(body):
        time.sleep(0.05)
        return repeating(body)

    with serving(slow) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(KILLED), server.base_url, str(store)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and not (store.exists() and store.read_bytes().count(b"\n") >= 6):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        arrived = len(read_journal(store))
        assert 6 <= arrived < 40
        asked = [(body["messages"][0]["content"], body["seed"]) for body in server.bodies]
        assert len(asked) <= arrived + 2
        there = pp.Server(server.base_url, "chat", store=store)
        answers = there.generate(questions(*(f"question {n}" for n in range(20))), pp.Sampling(n=2))
        again = [(body["messages"][0]["content"], body["seed"]) for body in server.bodies][len(asked) :]
        assert len(again) == len(set(again)) == 40 - arrived
        assert len({*asked, *again}) == 40
        assert [one.answer for one in answers] == [f"QUESTION {n}" for n in range(20) for _ in range(2)]
        there.generate(questions(*(f"question {n}" for n in range(20))), pp.Sampling(n=2))
        assert len(server.bodies) == len(asked) + len(again)
