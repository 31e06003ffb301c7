"""A model on an OpenAI-compatible server, which answers wherever a loaded model does."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from persona_probe.behaviour.api.chat import ChatReply, ChatRequest
from persona_probe.behaviour.api.client import ApiClient
from persona_probe.behaviour.sampling.engines import neutral_fields
from persona_probe.dialogue.dialogue import ROLES, Dialogue, Message
from persona_probe.errors import NUMBER, PATH, PersonaProbeError, PersonaProbeWarning, check_types
from persona_probe.models.sampling import Sampling

_SENT = ("tool_calls", "tool_call_id", "name")
"""The fields of a message that chat servers take in addition to role and content."""
_LETTERS_PER_TOKEN = 4
"""In English, roughly: for what is said before anything is asked."""


@dataclass(frozen=True)
class Server:
    """A model on an OpenAI-compatible server: vLLM, SGLang, llama.cpp, ``transformers serve``, OpenAI, ...

    The server renders the dialogue with its own chat template and runs its own copy of the weights, so that a wrong
    adapter or template changes answers without any error: `persona_probe.behaviour.check_server` finds it.

    Attributes:
        base_url: the server's address, as a rule with ``/v1`` at its end.
        model: what the server calls the model; with vLLM also the name of a LoRA adapter.
        name: what tables call it; default ``model``.
        api_key_env: the environment variable that holds the key; local servers need none.
        concurrency: how many requests are under way at the same time.
        requests_per_minute: the most requests in a minute; None: no limit.
        timeout: seconds after which a request has failed.
        retries: how many times a failed request is made again.
        store: a file (JSON lines) to which each answer is appended as it arrives; when it is asked again, what is there
            already is not. Several servers may share it.
        extra: further fields of each request (``{"stop": ["###"]}``).
        prices: what a million tokens cost to read and to write, in your currency, for what is said with
            ``progress=True``.

    Raises:
        PersonaProbeError: as `persona_probe.behaviour.api.client.ApiClient`; or if prices are negative.

    >>> server = Server("http://127.0.0.1:8000/v1", "bad-medicine")
    >>> server.name
    'bad-medicine'
    """

    base_url: str
    model: str
    name: str = ""
    api_key_env: str | None = "OPENAI_API_KEY"
    concurrency: int = 16
    requests_per_minute: float | None = None
    timeout: float = 300.0
    retries: int = 6
    store: str | Path | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Raise if an argument is not what it must be."""
        check_types(
            name=(self.name, str),
            store=(self.store, *PATH, None),
            extra=(self.extra, Mapping),
            prices=(self.prices, [NUMBER], None),
        )
        client = self.client
        if self.prices is not None and (len(self.prices) != 2 or min(self.prices) < 0):
            raise PersonaProbeError(
                f"prices is {self.prices!r}; give what a million tokens cost to read and to write: two numbers >= 0"
            )
        object.__setattr__(self, "base_url", client.base_url)
        object.__setattr__(self, "name", self.name or self.model)

    @property
    def client(self) -> ApiClient:
        """What makes the requests."""
        return ApiClient(
            self.base_url,
            self.model,
            api_key_env=self.api_key_env,
            concurrency=self.concurrency,
            requests_per_minute=self.requests_per_minute,
            timeout=self.timeout,
            retries=self.retries,
        )

    def generate(
        self, dialogues: Sequence[Dialogue], sampling: Sampling | None = None, *, progress: bool = False
    ) -> list[Dialogue]:
        """The dialogues, each with an answer; one that the server did not answer is returned without.

        Each answer is a request of its own, with a seed of its own that depends on ``sampling.seed``, on the dialogue
        and on the number of the answer, and not on what else is asked. ``batch_size`` means nothing here.

        Args:
            dialogues: each ends before the assistant's turn.
            sampling: how answers are sampled; default ``Sampling()``. The ``n`` answers to the same dialogue follow
                each other.
            progress: say before and after how many tokens there are and what they cost, and show a bar.

        Returns:
            Dialogues with the labels ``finish_reason`` (``length``: the answer was cut), ``request_seed``, and
            ``error`` if there is no answer.

        Raises:
            PersonaProbeError: if a dialogue already ends with an answer, has a field that servers do not take (a
                thought), or is a plain text; if the server's model is to sample with its own settings; if no request
                succeeds.

        Warns:
            PersonaProbeWarning: if requests failed.
        """
        sampling = sampling or Sampling()
        requests = self._asked(dialogues, sampling)
        if not requests:
            return []
        replies = self.complete(requests, progress=progress)
        asked = [dialogue for dialogue in dialogues for _ in range(sampling.n)]
        answered = [_answered(*one) for one in zip(asked, requests, replies, strict=True)]
        self._warn_of_failures(answered)
        return answered

    def replies(self, dialogues: Sequence[Dialogue], sampling: Sampling | None = None) -> list[ChatReply]:
        """The server's replies to the same requests as `generate` makes, with all that it says (log-probabilities)."""
        return self.complete(self._asked(dialogues, sampling or Sampling()))

    def _asked(self, dialogues: Sequence[Dialogue], sampling: Sampling) -> list[ChatRequest]:
        """A request for each answer."""
        check_types(dialogues=(dialogues, [Dialogue]), sampling=(sampling, Sampling))
        if sampling.generation_config == "model":
            raise PersonaProbeError(
                f"{self.name}: generation_config='model' needs a loaded model, whose config can be read; a server is "
                "asked with temperature and top_p: give these"
            )
        turns = [_turns(dialogue) for dialogue in dialogues for _ in range(sampling.n)]
        if not turns:
            return []
        return _requests(turns, sampling, {**neutral_fields(self.client.owner()), **self.extra})

    def complete(self, requests: Sequence[ChatRequest], *, progress: bool = False, label: str = "") -> list[ChatReply]:
        """The reply to each request, in their order, from the store or the server; see `ApiClient.complete`.

        Args:
            requests: what to ask.
            progress: say before and after how many tokens there are and what they cost, and show a bar.
            label: what the bar is called; default the server's name.
        """
        start = time.monotonic()
        if progress:
            _say(self._before(requests))
        replies = self.client.complete(requests, store=self.store, progress=progress, label=label or self.name)
        if progress:
            _say(self._after(replies, time.monotonic() - start))
        return replies

    def _warn_of_failures(self, answered: Sequence[Dialogue]) -> None:
        errors = [dialogue.labels["error"] for dialogue in answered if dialogue.answer is None]
        if errors:
            again = (
                "ask again, and only these are asked"
                if self.store is not None
                else "with store= they can be asked again"
            )
            warnings.warn(
                f"{self.name}: {len(errors)} of {len(answered)} requests failed and have no answer ({again}). First: "
                f"{errors[0]}",
                PersonaProbeWarning,
                stacklevel=3,
            )

    def _before(self, requests: Sequence[ChatRequest]) -> str:
        letters = sum(len(str(turn["content"])) for request in requests for turn in request.messages)
        read, written = letters // _LETTERS_PER_TOKEN, sum(request.max_tokens for request in requests)
        least = ""
        if self.requests_per_minute is not None:
            least = f", at least {len(requests) / self.requests_per_minute * 60:.0f} s"
        return (
            f"{self.name}: {len(requests)} requests, about {read:,} tokens to read and at most {written:,} to write"
            f"{self._cost(read, written, ', at most about')}{least}; what is in the store is not asked again"
        )

    def _after(self, replies: Sequence[ChatReply], seconds: float) -> str:
        read, written = (
            sum(getattr(reply, name) or 0 for reply in replies) for name in ("prompt_tokens", "completion_tokens")
        )
        failed = sum(reply.error is not None for reply in replies)
        return (
            f"{self.name}: {len(replies) - failed} answers, {failed} failed; {read:,} tokens read, {written:,} written"
            f"{self._cost(read, written, ',')}; {seconds:.1f} s"
        )

    def cost(self, read: float, written: float) -> float | None:
        """What it costs to read and to write so many tokens; None if there are no prices."""
        return None if self.prices is None else (read * self.prices[0] + written * self.prices[1]) / 1e6

    def _cost(self, read: int, written: int, words: str) -> str:
        cost = self.cost(read, written)
        return "" if cost is None else f"{words} {cost:.4f} at these prices"


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _turns(dialogue: Dialogue) -> tuple[dict[str, Any], ...]:
    """The messages of a dialogue as servers take them.

    Raises:
        PersonaProbeError: if it ends with an answer, or has something that servers do not take; it is named.
    """
    if dialogue.answer is not None:
        raise PersonaProbeError(
            f"dialogue {dialogue.name}: already ends with an answer; use dialogue.without_answer() to ask it again"
        )
    turns = []
    for place, message in enumerate(dialogue.messages):
        if message.role not in ROLES:
            raise PersonaProbeError(
                f"dialogue {dialogue.name}: is a plain text, which a chat server cannot be asked; make it a dialogue"
            )
        other = next((name for name in message.further if name not in _SENT), None)
        if other is not None:
            raise PersonaProbeError(
                f"dialogue {dialogue.name}: message {place} ({message.role}) has {other!r}, which chat servers do not "
                "take: the model would not read it; leave it out, or ask a loaded model"
            )
        turn = message.as_dict()
        if "tool_calls" in turn:
            turn["tool_calls"] = [_as_text(call) for call in turn["tool_calls"]]
        turns.append(turn)
    return tuple(turns)


def _as_text(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call with its arguments as JSON text, as the API has them; chat templates have objects."""
    function = call.get("function")
    if not isinstance(function, Mapping) or isinstance(function.get("arguments"), str):
        return dict(call)
    arguments = json.dumps(function.get("arguments", {}), ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}


def _requests(
    turns: Sequence[tuple[dict[str, Any], ...]], sampling: Sampling, fields: Mapping[str, Any]
) -> list[ChatRequest]:
    """A request for each answer; equal dialogues are numbered, so that each has another seed."""
    seen: Counter[str] = Counter()
    requests = []
    for messages in turns:
        text = json.dumps(messages, sort_keys=True)
        seed = _seed(sampling.seed, text, seen[text])
        seen[text] += 1
        requests.append(
            ChatRequest(
                messages,
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed,
                extra=fields,
            )
        )
    return requests


def _seed(seed: int, text: str, number: int) -> int:
    """The seed of one request (31 bits, which every server takes).

    One seed for all would give every question the same random numbers, and their answers would not be independent.
    """
    digest = hashlib.sha256(f"{seed}|{number}|{text}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _answered(dialogue: Dialogue, request: ChatRequest, reply: ChatReply) -> Dialogue:
    """The dialogue with the reply as its answer, or with the label ``error``."""
    text, error = reply.text if reply.text is not None else reply.refusal, reply.error
    if error is None and text is None:
        error = f"the reply has no text (finish_reason {reply.finish_reason!r})"
    labelled = dialogue.with_labels(finish_reason=reply.finish_reason, request_seed=request.seed)
    if error is not None or text is None:
        return labelled.with_labels(error=error)
    return replace(labelled, messages=(*dialogue.messages, Message("assistant", text.strip(), reply.further)))
