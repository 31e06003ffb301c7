"""Many chat requests to one OpenAI-compatible server at once: retried, limited, and written down as replies arrive."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import os
import re
import threading
import urllib.parse
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm.auto import tqdm

from persona_probe.behaviour.api.chat import ChatReply, ChatRequest, GarbledReplyError, read_reply
from persona_probe.behaviour.api.journal import Journal, open_journal
from persona_probe.behaviour.api.retrying import Failure, backoff, of_status, server_words
from persona_probe.errors import NUMBER, PATH, WHOLE, PersonaProbeError, check_types

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
_PATIENCE = 3
"""So many requests in succession must fail for good, at least, before the others are not asked."""
_HIDDEN = "(the key)"
_FEW = 3
"""So many letters of a key say nothing of it."""
_NO_KEY = "none"
"""Sent to servers that need no key: the library sends something in any case."""


@dataclass(frozen=True)
class ApiClient:
    """A model on an OpenAI-compatible server (vLLM, ``transformers serve``, llama.cpp, OpenAI, ...).

    Attributes:
        base_url: the server's address, as a rule with ``/v1`` at its end.
        model: what the server calls the model; with vLLM also the name of a LoRA adapter.
        api_key_env: the environment variable that holds the key; None, or a variable that is not set, sends no key.
            The key itself is read when requests are made, and kept nowhere.
        concurrency: how many requests are under way at the same time.
        requests_per_minute: how many requests are made in a minute at most, retries included; None: no limit.
        timeout: seconds after which a request has failed.
        retries: how many times a request is made again (busy or broken servers, time-outs, lost connections).

    Raises:
        PersonaProbeError: if ``base_url`` is not an address, or holds a password; if a number is out of range.

    >>> ApiClient("http://127.0.0.1:8000/v1", "chat", concurrency=4).model
    'chat'
    """

    base_url: str
    model: str
    api_key_env: str | None = "OPENAI_API_KEY"
    concurrency: int = 16
    requests_per_minute: float | None = None
    timeout: float = 60.0
    retries: int = 6

    def __post_init__(self) -> None:
        """Raise if an argument is not what it must be."""
        check_types(
            base_url=(self.base_url, str),
            model=(self.model, str),
            api_key_env=(self.api_key_env, str, None),
            concurrency=(self.concurrency, WHOLE),
            requests_per_minute=(self.requests_per_minute, NUMBER, None),
            timeout=(self.timeout, NUMBER),
            retries=(self.retries, WHOLE),
        )
        parts = urllib.parse.urlsplit(self.base_url)
        if "@" in self.base_url or parts.query or parts.fragment:
            raise PersonaProbeError(
                "base_url: holds a name, a password or a query ('...@', '?...', '#...'), which is not shown here; a "
                "key belongs into an environment variable (api_key_env=)"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PersonaProbeError(
                f"base_url is {self.base_url!r}; it must be an address such as 'http://127.0.0.1:8000/v1'"
            )
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))
        if not self.model:
            raise PersonaProbeError("model is empty; give the name that the server has for it")
        # Keys have small letters, and some are identifiers otherwise (gsk_..., hf_...).
        if self.api_key_env is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise PersonaProbeError(
                "api_key_env must be the name of an environment variable, in capitals (OPENAI_API_KEY), not the key "
                "itself"
            )
        rate = self.requests_per_minute
        if self.concurrency < 1 or self.timeout <= 0 or self.retries < 0 or (rate is not None and not rate > 0):
            raise PersonaProbeError(
                f"concurrency={self.concurrency}, timeout={self.timeout}, retries={self.retries}, "
                f"requests_per_minute={rate}; concurrency must be >= 1, retries >= 0, the others above 0"
            )

    def complete(
        self,
        requests: Sequence[ChatRequest],
        *,
        store: str | Path | None = None,
        progress: bool = False,
        label: str = "",
    ) -> list[ChatReply]:
        """The reply to each request, in their order; a request that failed for good gives a reply with an ``error``.

        Equal requests are asked as often as they are given (samples). It also works where an event loop is running
        (Jupyter).

        Args:
            requests: what to ask.
            store: a file (JSON lines) to which each reply is appended as it arrives. What it holds already is not asked
                again; requests that failed are. Without it, everything is asked.
            progress: show a bar.
            label: what the bar is called.

        Raises:
            PersonaProbeError: if the extra ``[api]`` is not installed; if no request succeeds (a wrong key, no such
                model, no server), with the server's words; if another run has ``store`` open, or it is broken.
        """
        check_types(requests=(requests, [ChatRequest]), store=(store, *PATH, None))
        _imported()
        with open_journal(None if store is None else Path(store)) as journal:
            calls = _Calls(self, requests, journal, label if progress else None)
            return calls.finished()

    def owner(self) -> str | None:
        """Who owns the model, as the server's list of models says (``vllm``, ``llamacpp``, ...), or None."""
        listed = _in_thread(self._listed())
        return next((owner for name, owner in listed or () if name == self.model), None)

    async def _listed(self) -> list[tuple[str, str | None]] | None:
        """The names of the server's models and their owners; None if it does not list them."""
        import openai

        try:
            async with self.opened() as server, asyncio.timeout(self.timeout):
                models = (await server.with_options(max_retries=2).models.list()).data
            return [(str(model.id), getattr(model, "owned_by", None)) for model in models]
        except (openai.OpenAIError, TimeoutError, AttributeError, TypeError, ValueError):
            return None

    def opened(self) -> AsyncOpenAI:
        """The library's client, with the key from the environment."""
        key = os.environ.get(self.api_key_env or "") or _NO_KEY
        return _imported()(base_url=self.base_url, api_key=key, timeout=self.timeout, max_retries=0)


def _imported() -> type[AsyncOpenAI]:
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise PersonaProbeError(
            "asking a server needs openai, which is not installed: pip install 'persona-probe[api]'"
        ) from error
    return AsyncOpenAI


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` returns, run in a thread with an event loop of its own, so that one may be running here (Jupyter).

    Ctrl-C stops it, and waits until it has stopped.
    """
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)

    def run() -> None:
        with contextlib.suppress(BaseException):  # it is read from the task
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    return task.result()


class _Calls:
    """The requests of one call of `ApiClient.complete`, made in a thread with an event loop of its own."""

    def __init__(self, client: ApiClient, requests: Sequence[ChatRequest], journal: Journal, label: str | None) -> None:
        self.client, self.journal = client, journal
        self.label = label
        self.replies: dict[int, ChatReply] = {}
        self.pending: list[tuple[int, ChatRequest, int, str]] = []
        seen: Counter[str] = Counter()
        for place, request in enumerate(requests):
            number = seen[same := request.key(client.base_url, client.model, 0)]
            seen[same] += 1
            key = request.key(client.base_url, client.model, number)
            if (reply := journal.reply(key)) is not None:
                self.replies[place] = reply
            else:
                self.pending.append((place, request, number, key))
        self.total = len(requests)
        self.succeeded = bool(self.replies)
        self.at_once = min(client.concurrency, len(self.pending))
        self.patience = max(_PATIENCE, client.concurrency)
        self.failures = self.in_a_row = 0
        self.given_up: str | None = None
        self.next_start = self.paused_until = 0.0
        self.key = os.environ.get(client.api_key_env or "") or _NO_KEY

    def finished(self) -> list[ChatReply]:
        """All replies, when they are there; Ctrl-C stops the requests that are under way first."""
        if self.pending:
            _in_thread(self._all())
        return [self.replies[place] for place in range(self.total)]

    async def _all(self) -> None:
        waiting = iter(self.pending)
        async with self.client.opened() as server:
            with tqdm(
                total=self.total,
                initial=len(self.replies),
                desc=self.label or "requests",
                unit="request",
                disable=self.label is None,
                leave=False,
            ) as bar:

                async def worker() -> None:
                    for place, request, number, key in waiting:
                        reply = await self._reply(server, request)
                        self.replies[place] = reply
                        self.journal.append(
                            key,
                            reply,
                            base_url=self.client.base_url,
                            model=self.client.model,
                            request=request.body(),
                            number=number,
                        )
                        bar.update()

                workers = [asyncio.ensure_future(worker()) for _ in range(self.at_once)]
                try:
                    await asyncio.gather(*workers)
                finally:
                    for one in workers:
                        one.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)

    async def _reply(self, server: AsyncOpenAI, request: ChatRequest) -> ChatReply:
        """The reply to one request, or one with an error.

        Raises:
            PersonaProbeError: if no request has succeeded yet, and none can be expected to.
        """
        if self.given_up is not None:
            return ChatReply(error=self.given_up)
        attempt = 0
        while True:
            await self._turn()
            outcome = await self._once(server, request)
            if isinstance(outcome, ChatReply):
                self.succeeded, self.in_a_row = True, 0
                return outcome
            if not outcome.again or attempt == self.client.retries:
                break
            if outcome.wait is not None:  # the server is busy: nobody asks it before that
                self.paused_until = max(self.paused_until, self._now() + outcome.wait)
            await asyncio.sleep(backoff(attempt) if outcome.wait is None else outcome.wait)
            attempt += 1
        times = f" (asked {attempt + 1} times)" if attempt else ""
        failure = replace(outcome, reason=f"{self._without_key(outcome.reason)}{times}")
        await self._count(failure)
        return ChatReply(error=failure.reason)

    async def _turn(self) -> None:
        """Wait until the limit of requests per minute, and a server that asked to wait, allow one more."""
        while (wait := max(self.paused_until, self.next_start) - self._now()) > 0:
            await asyncio.sleep(wait)
        if self.client.requests_per_minute is not None:
            self.next_start = max(self._now(), self.next_start) + 60 / self.client.requests_per_minute

    async def _once(self, server: AsyncOpenAI, request: ChatRequest) -> ChatReply | Failure:
        import openai

        try:
            async with asyncio.timeout(self.client.timeout):  # of all of it: a server may send a byte now and then
                response = await server.chat.completions.with_raw_response.create(
                    model=self.client.model, messages=[], extra_body=request.body()
                )
            return read_reply(json.loads(response.http_response.text))
        except (TimeoutError, openai.APITimeoutError):
            return Failure(f"no reply within {self.client.timeout:g} seconds", again=True)
        except openai.APIStatusError as error:
            words, code = server_words(error.body, error.response.text)
            return of_status(error.status_code, words, code, error.response.headers)
        except openai.APIConnectionError as error:
            why = error.__cause__ or error
            return Failure(f"no connection ({type(why).__name__}: {why})", again=True)
        except (GarbledReplyError, json.JSONDecodeError, UnicodeDecodeError) as error:
            return Failure(f"the reply cannot be read: {error}", again=True)

    async def _count(self, failure: Failure) -> None:
        """Count a failure; raise, or give up on the rest, if the others cannot be expected to succeed.

        Requests that are wrong by themselves (too long) say nothing of the others once one has succeeded. As many other
        failures in succession as there are requests under way (at least three) mean that the server is gone.
        """
        self.failures += 1
        self.in_a_row += not failure.own
        hopeless = failure.every or failure.status is None or self.failures >= min(self.patience, len(self.pending))
        if not self.succeeded and hopeless:
            raise PersonaProbeError(await self._explained(failure))
        if failure.every or self.in_a_row >= self.patience:
            self.given_up = f"not asked, since the server fails: {failure.reason}"

    async def _explained(self, failure: Failure) -> str:
        """What to do about a failure that ends the run, in a sentence."""
        start = f"{self.client.base_url}, model {self.client.model!r}: {failure.reason}"
        variable = self.client.api_key_env
        if failure.status in (401, 403):
            given = variable and os.environ.get(variable)
            state = f"the key in {variable} was sent" if given else f"no key was sent ({variable} is not set)"
            return f"{start}; {state}: set the environment variable that holds the key (api_key_env=)"
        if failure.status == 404:
            listed = await self.client._listed()
            if listed is None:
                return f"{start}; it lists no models either: see base_url, which ends in /v1 as a rule"
            return f"{start}; it has the models {', '.join(repr(name) for name, _ in listed) or '(none)'}"
        if failure.status is None:
            return f"{start}; see that the server is running and that base_url is its address"
        return start if failure.own else f"{start}; try again later, or with a lower concurrency"

    def _without_key(self, words: str) -> str:
        """``words`` without the key, should the server repeat it; also where they were cut within the key."""
        if self.key == _NO_KEY:
            return words
        words = words.replace(self.key, _HIDDEN)
        cut = next((size for size in range(len(self.key) - 1, _FEW, -1) if words.endswith(self.key[:size])), 0)
        return words[: len(words) - cut] + _HIDDEN * (cut > 0)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
