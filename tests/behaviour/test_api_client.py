"""The client over OpenAI's library: nothing lost, nothing asked twice, whatever the server does."""

import asyncio
import json
import logging
import threading
import time
import warnings

import pytest

import persona_probe as pp
from persona_probe.behaviour.api import retrying
from persona_probe.behaviour.api.chat import ChatReply, ChatRequest, TokenLogprob
from persona_probe.behaviour.api.client import ApiClient
from persona_probe.behaviour.api.journal import read_journal
from persona_probe.behaviour.api.retrying import asked_wait, of_status
from tests.behaviour.loopback import completion, refusal, repeating, serving

pytest.importorskip("openai")
KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.002)


def asked(*texts, **more):
    return [ChatRequest(({"role": "user", "content": text},), 8, 0.0, **more) for text in texts]


def texts(replies):
    return [reply.text for reply in replies]


@pytest.mark.parametrize("fault", [429, 408, 409, 500, 503, "late", "garbage", "half", "gone"])
def test_a_fault_is_mended_by_asking_again(fault):
    with serving() as server:
        server.faults, server.retry_after = [None, fault, fault], "0.01"
        client = ApiClient(server.base_url, "chat", timeout=0.2 if fault == "late" else 5, concurrency=1)
        assert texts(client.complete(asked("a", "b", "c"))) == ["A", "B", "C"]
        assert [body["messages"][0]["content"] for body in server.bodies] == ["a", "b", "b", "b", "c"]


def test_replies_stand_in_the_order_of_requests_and_equal_requests_are_samples():
    count = iter(range(100))
    with serving(lambda body: completion(f"{body['messages'][0]['content']}{next(count)}")) as server:
        replies = ApiClient(server.base_url, "chat").complete(asked(*"xyxyx"))
        assert [reply.text[0] for reply in replies] == list("xyxyx")
        assert len(set(texts(replies))) == 5


def test_everything_that_was_asked_for_is_sent_and_everything_said_is_read():
    listed = {"content": [{"token": "A", "logprob": -0.5, "top_logprobs": [{"token": "B", "logprob": -1}]}]}

    def answer(body):
        return completion("A", "tiny", finish_reason="length", logprobs=listed, message={"reasoning_content": "Hm."})

    with serving(answer) as server:
        request = asked("a", top_p=0.5, seed=3, top_logprobs=5, extra={"top_k": 7, "max_completion_tokens": 9})
        (reply,) = ApiClient(server.base_url, "chat").complete(request)
        assert server.bodies[0] == {
            "model": "chat",
            "messages": [{"role": "user", "content": "a"}],
            "temperature": 0.0,
            "top_p": 0.5,
            "seed": 3,
            "logprobs": True,
            "top_logprobs": 5,
            "top_k": 7,
            "max_completion_tokens": 9,
        }
    assert reply == ChatReply(
        "A", "length", None, [TokenLogprob("A", -0.5, (("B", -1.0),))], 7, 3, "tiny", {"reasoning_content": "Hm."}
    )
    assert ChatReply.from_record(json.loads(json.dumps(reply.record()))) == reply


def test_no_more_than_so_many_at_once_and_in_a_minute():
    def slow(body):
        time.sleep(0.02)
        return repeating(body)

    with serving(slow) as server:
        ApiClient(server.base_url, "chat", concurrency=3).complete(asked(*"abcdefgh"))
        assert server.most == 3
        server.times.clear()
        ApiClient(server.base_url, "chat", requests_per_minute=1500).complete(asked(*"abcdef"))
        assert server.times[-1] - server.times[0] > 0.9 * 5 * 60 / 1500


def test_when_a_server_asks_to_wait_nobody_asks_before(monkeypatch):
    with serving() as server:
        server.faults, server.retry_after = [429], "0.2"
        ApiClient(server.base_url, "chat", concurrency=1).complete(asked("a", "b"))
        assert server.times[1] - server.times[0] >= 0.2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3),
        ({"retry-after-ms": "20", "retry-after": "3"}, 0.02),
        ({}, None),
        ({"retry-after": "?"}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(headers, seconds):
    assert asked_wait(headers) == seconds
    assert asked_wait({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0


def test_what_a_retry_cannot_mend():
    assert of_status(429, "no money", "insufficient_quota", {}).every
    assert not of_status(429, "tomorrow", None, {"retry-after": "86400"}).again
    assert of_status(400, "too long", None, {}).own


def test_a_wrong_key_model_address_or_field_is_said_at_once(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(models=("chat", "bad")) as server:
        with pytest.raises(pp.PersonaProbeError, match=r"'nope': .* 404: .*; it has the models 'chat', 'bad'"):
            ApiClient(server.base_url, "nope").complete(asked(*"abc"))
        server.answer = lambda _body: refusal(401, f"Incorrect API key provided: {KEY}.")
        with pytest.raises(pp.PersonaProbeError, match=r"401: Incorrect .*: \(the key\); the key in OPENAI"):
            ApiClient(server.base_url, "chat").complete(asked("a"))
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(pp.PersonaProbeError, match=r"no key was sent \(OPENAI_API_KEY is not set\)"):
            ApiClient(server.base_url, "chat").complete(asked("a"))
        server.answer = lambda _body: refusal(400, "top_logprobs must be at most 20")
        with pytest.raises(pp.PersonaProbeError, match="400: top_logprobs must be at most 20"):
            ApiClient(server.base_url, "chat").complete(asked("a", "b"))
        address = server.base_url
    with pytest.raises(pp.PersonaProbeError, match=r"no connection .*asked 2 times.*; see that the server is running"):
        ApiClient(address, "chat", retries=1).complete(asked("a"))


def test_one_request_that_fails_for_good_is_counted_and_the_others_are_not_lost():
    def answer(body):
        long = body["messages"][0]["content"] == "long"
        return refusal(400, "maximum context length is 256 tokens") if long else repeating(body)

    with serving(answer) as server:
        replies = ApiClient(server.base_url, "chat", concurrency=2).complete(asked("a", "long", "c"))
    assert texts(replies) == ["A", None, "C"]
    assert replies[1].error == "the server answered 400: maximum context length is 256 tokens"


def test_a_request_that_always_breaks_the_server_does_not_stop_the_others():
    def answer(body):
        return refusal(500, "out of order") if body["messages"][0]["content"] == "boom" else repeating(body)

    with serving(answer) as server:
        replies = ApiClient(server.base_url, "chat", concurrency=1, retries=2).complete(asked("boom", "a", "boom", "b"))
    assert texts(replies) == [None, "A", None, "B"]
    assert replies[0].error == "the server answered 500: out of order (asked 3 times)"


def test_a_server_that_dies_is_given_up_and_the_rest_is_asked_in_the_next_run(tmp_path):
    store = tmp_path / "store.jsonl"
    with serving() as server:
        client = ApiClient(server.base_url, "chat", concurrency=2, retries=1)
        server.faults = [None, None] + ["gone"] * 100
        replies = client.complete(asked(*"abcdefghij"), store=store)
        assert texts(replies).count(None) == 8
        assert len(server.bodies) <= 2 + 2 * 5
        assert replies[-1].error.startswith("not asked, since the server fails")
        server.faults.clear()
        server.bodies.clear()
        assert texts(client.complete(asked(*"abcdefghij"), store=store)) == list("ABCDEFGHIJ")
        assert sorted(body["messages"][0]["content"] for body in server.bodies) == sorted("cdefghij")


def test_what_is_in_the_store_is_not_asked_again_unless_something_that_matters_differs(tmp_path):
    store = tmp_path / "store.jsonl"
    with serving(models=("chat", "bad")) as server:
        client = ApiClient(server.base_url, "chat")
        client.complete(asked("a", "a", "b"), store=store)
        client.complete(asked("b", "a", "a"), store=store)
        assert len(server.bodies) == 3
        for changed in (
            lambda: client.complete(asked("a", "a", "a"), store=store),
            lambda: client.complete(asked("a", seed=1), store=store),
            lambda: client.complete(asked("a", top_logprobs=2), store=store),
            lambda: client.complete(asked("a", extra={"top_k": 1}), store=store),
            lambda: ApiClient(server.base_url, "bad").complete(asked("a"), store=store),
        ):
            before = len(server.bodies)
            changed()
            assert len(server.bodies) == before + 1
    assert len(read_journal(store)) == 8


def test_a_broken_last_line_is_dropped_with_a_warning_and_another_one_is_an_error(tmp_path):
    store = tmp_path / "store.jsonl"
    with serving() as server:
        client = ApiClient(server.base_url, "chat", concurrency=1)
        client.complete(asked(*"abc"), store=store)
        lines = store.read_bytes().splitlines(keepends=True)
        store.write_bytes(b"".join(lines[:2]) + lines[2][:40])
        with pytest.warns(pp.PersonaProbeWarning, match="its last line is broken"):
            assert texts(client.complete(asked(*"abc"), store=store)) == ["A", "B", "C"]
        assert len(server.bodies) == 4
        assert len(read_journal(store)) == 3
        store.write_bytes(b"".join(lines).rstrip(b"\n"))  # killed between the line and its end: the line is whole
        client.complete(asked(*"abcd"), store=store)
        assert len(server.bodies) == 5
        assert len(read_journal(store)) == 4
        store.write_bytes(lines[0] + b"{}\n" + lines[1])
        with pytest.raises(pp.PersonaProbeError, match=r"store.jsonl, line 2: is not a reply"):
            client.complete(asked(*"abc"), store=store)


def test_two_runs_on_one_store_are_refused(tmp_path):
    store = tmp_path / "store.jsonl"
    hold = threading.Event()

    def answer(body):
        hold.wait(5)
        return repeating(body)

    with serving(answer) as server:
        client = ApiClient(server.base_url, "chat")
        first = threading.Thread(target=client.complete, args=(asked("a"),), kwargs={"store": store})
        first.start()
        while not server.bodies:
            time.sleep(0.005)
        with pytest.raises(pp.PersonaProbeError, match="another run appends to this file"):
            client.complete(asked("b"), store=store)
        hold.set()
        first.join()
        assert texts(client.complete(asked("a"), store=store)) == ["A"]
        assert len(server.bodies) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["store.jsonl"]


def test_ctrl_c_leaves_what_arrived(tmp_path, monkeypatch):
    store = tmp_path / "store.jsonl"
    hold = threading.Event()

    def answer(body):
        if body["messages"][0]["content"] == "slow":
            hold.wait(5)
        return repeating(body)

    with serving(answer) as server:
        client = ApiClient(server.base_url, "chat", concurrency=1)
        join = threading.Thread.join

        def interrupted(thread, timeout=None):
            monkeypatch.setattr(threading.Thread, "join", join)
            while len(server.bodies) < 3:
                time.sleep(0.005)
            raise KeyboardInterrupt

        monkeypatch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.complete(asked("a", "b", "slow", "c"), store=store)
        hold.set()
        assert sorted(reply.text for reply in read_journal(store).values()) == ["A", "B"]
        assert texts(client.complete(asked("a", "b", "slow", "c"), store=store)) == ["A", "B", "SLOW", "C"]
        assert len(server.bodies) == 5


def test_it_works_where_an_event_loop_is_running():
    with serving() as server:

        async def cell():
            return ApiClient(server.base_url, "chat").complete(asked("a"))

        assert texts(asyncio.run(cell())) == ["A"]


def test_the_key_is_sent_and_written_nowhere(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    store = tmp_path / "store.jsonl"

    def answer(body):
        # What a server says is cut after 500 characters, here within the key.
        said = {"b": f"bad header: Bearer {KEY}", "c": f"{'x' * 489} {KEY}"}.get(body["messages"][0]["content"])
        return repeating(body) if said is None else refusal(400, said)

    with serving(answer) as server, warnings.catch_warnings(record=True) as warned:
        client = ApiClient(server.base_url, "chat", api_key_env="MY_KEY", concurrency=1)
        server.faults = [500, "garbage"]
        replies = client.complete(asked("a", "b", "c"), store=store, progress=True)
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    said = [repr(client), repr(vars(client)), repr(replies), store.read_text(), caplog.text, *map(str, warned)]
    assert "(the key)" in replies[1].error
    assert replies[2].error.endswith("x (the key)")
    assert not [text for text in (*said, *capfd.readouterr()) if KEY[:6] in text]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base_url": "localhost:8000"}, "base_url is 'localhost:8000'; it must be an address"),
        ({"base_url": f"http://me:{KEY}@host/v1"}, "holds a name, a password or a query"),
        ({"base_url": f"http://host/v1?api-key={KEY}"}, "holds a name, a password or a query"),
        ({"api_key_env": KEY}, "not the key itself"),
        ({"model": ""}, "model is empty"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"retries": -1}, "retries=-1"),
        ({"requests_per_minute": 0}, "requests_per_minute=0"),
    ],
)
def test_what_it_is_made_of_is_checked(given, message):
    with pytest.raises(pp.PersonaProbeError, match=message) as error:
        ApiClient(**{"base_url": "http://host/v1", "model": "chat", **given})
    assert KEY not in str(error.value)


def test_a_request_that_json_cannot_hold_is_an_error():
    with pytest.raises(pp.PersonaProbeError, match="a field that JSON cannot hold"):
        ApiClient("http://127.0.0.1:9/v1", "chat").complete(asked("a", extra={"stop": {1, 2}}))
