"""What is asked of a chat server and what it answers, as values that a file can hold."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from persona_probe.errors import PersonaProbeError

LENGTH = "max_completion_tokens"
"""The newer name of ``max_tokens``, which some servers demand: if ``extra`` has it, ``max_tokens`` is not sent."""


@dataclass(frozen=True)
class ChatRequest:
    """Everything that matters for a reply, except the server and the name of the model.

    Attributes:
        messages: role and content of each turn, as the server takes them.
        max_tokens: length of the longest reply, in tokens.
        temperature: sampling temperature; 0 decodes greedily.
        top_p: probability mass of nucleus sampling.
        seed: seed of the sampling; None sends none.
        top_logprobs: how many of the likeliest tokens the server lists at each place, with their log-probabilities;
            None asks for no log-probabilities.
        extra: further fields of the request (``stop``, vLLM's ``top_k``, ...).

    >>> ChatRequest(({"role": "user", "content": "Hi."},), max_tokens=8, temperature=0).body()["messages"]
    [{'role': 'user', 'content': 'Hi.'}]
    """

    messages: tuple[Mapping[str, Any], ...]
    max_tokens: int
    temperature: float
    top_p: float = 1.0
    seed: int | None = None
    top_logprobs: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The fields of the request; the name of the model is not one of them."""
        fields: dict[str, Any] = {
            "messages": [dict(message) for message in self.messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
        }
        if self.seed is not None:
            fields["seed"] = self.seed
        if self.top_logprobs is not None:
            fields |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if LENGTH in self.extra:
            del fields["max_tokens"]
        return fields | dict(self.extra)

    def key(self, base_url: str, model: str, number: int) -> str:
        """A hash of everything that matters: the server, the model, the request, and the number of the sample.

        Args:
            base_url: address of the server.
            model: what the server calls the model.
            number: how many equal requests came before this one.
        """
        asked = [base_url, model, self.body(), number]
        try:
            text = json.dumps(asked, sort_keys=True, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise PersonaProbeError(
                f"a request to {model!r} has a field that JSON cannot hold: {error}; see messages and extra"
            ) from error
        return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a reply, its log-probability (nats), and the likeliest tokens at its place with theirs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ChatReply:
    """What the server answered, or why there is no answer.

    Attributes:
        text: the reply; None if there is none (a refusal, a tool call, a failure).
        finish_reason: why it ends: ``stop``, ``length`` (cut at ``max_tokens``), ...
        refusal: the server's own refusal, where it keeps it apart from the text.
        logprobs: the tokens of the reply; None if none were asked for, or the server gives none.
        prompt_tokens, completion_tokens: how many tokens were read and written, as the server counts them.
        model: what the server says that the model is.
        further: what the message has besides its text (tool calls, a thought).
        error: why the request failed for good, in a sentence; None if it did not.
    """

    text: str | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    logprobs: list[TokenLogprob] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str | None = None
    further: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    def record(self) -> dict[str, Any]:
        """The reply in JSON's types, without what is empty."""
        record = {name: value for name, value in dataclasses.asdict(self).items() if value not in (None, {})}
        if self.logprobs is not None:
            record["logprobs"] = [[one.token, one.logprob, list(map(list, one.top))] for one in self.logprobs]
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> ChatReply:
        """The reply that `record` wrote; raises `TypeError`, `ValueError` or `LookupError` for anything else."""
        fields = dict(record)
        if fields.get("logprobs") is not None:
            fields["logprobs"] = [
                TokenLogprob(str(token), float(logprob), tuple((str(name), float(value)) for name, value in top))
                for token, logprob, top in fields["logprobs"]
            ]
        return cls(**fields)


class GarbledReplyError(ValueError):
    """The server said that all is well, and what it sent is not a reply."""


def read_reply(body: Any) -> ChatReply:
    """The reply in the JSON of a chat completion.

    Raises:
        GarbledReplyError: if it is something else; the message says what.
    """
    try:
        choice = body["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        if not all(isinstance(value, str | None) for value in (text, refusal)):
            raise TypeError(f"content is {text!r}")
        usage = body.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        return ChatReply(
            text=text,
            finish_reason=choice.get("finish_reason"),
            refusal=refusal or None,
            logprobs=_logprobs(choice.get("logprobs")),
            prompt_tokens=counts[0] if isinstance(counts[0], int) else None,
            completion_tokens=counts[1] if isinstance(counts[1], int) else None,
            model=body.get("model"),
            further={
                name: message[name]
                for name in ("tool_calls", "reasoning_content", "reasoning")
                if message.get(name) not in (None, "", [])
            },
        )
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise GarbledReplyError(f"not a chat completion ({error!r}): {str(body)[:120]}") from error


def _logprobs(given: Any) -> list[TokenLogprob] | None:
    if given is None or given.get("content") is None:
        return None
    return [
        TokenLogprob(
            str(token["token"]),
            float(token["logprob"]),
            tuple((str(other["token"]), float(other["logprob"])) for other in token.get("top_logprobs") or ()),
        )
        for token in given["content"]
    ]
