"""Asks a judge behind an API, and reads its replies: from the likeliest tokens, digit by digit, or from texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from persona_probe.behaviour.api.chat import ChatReply, ChatRequest
from persona_probe.behaviour.judges.api_digits import CONTINUING, Digits, follow
from persona_probe.behaviour.judges.api_replies import (
    Place,
    ScoreReading,
    has_logprobs,
    of_texts,
    parts_of,
    place_at,
    reading_of,
    word_in,
)
from persona_probe.behaviour.sampling.engines import neutral_fields
from persona_probe.behaviour.sampling.server import Server
from persona_probe.errors import PersonaProbeError

_AGAIN = 2
"""How many times a judge that said nothing valid is asked again."""
LONGEST = 16
"""Tokens of the longest reply: a valid one has fewer, and of any other one sees what the judge would rather say."""
_TEXTS, _DIGITS = "texts", "log-probabilities of digits"


@dataclass(frozen=True)
class JudgePrompt:
    """One user turn for the judge.

    Attributes:
        content: the filled prompt.
        scores: which scores its reply holds, in order.
        words: for each, the words that may stand instead of a number.
    """

    content: str
    scores: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]


class ApiAsker:
    """Asks a judge behind an API, and reads its replies.

    Args:
        server: the model, and where it is.
        samples: how many texts are averaged where log-probabilities cannot be used.
        top_logprobs: how many of the likeliest tokens to ask for; 0 reads texts.
        least_mass: the probability below which the judge has failed.

    Attributes:
        calls: how many replies were used, from the server or the store.
        tokens_read, tokens_written: their tokens, as the server counts them.
    """

    def __init__(self, server: Server, *, samples: int, top_logprobs: int, least_mass: float) -> None:
        self.server, self.samples = server, samples
        self.top_logprobs, self.least_mass = top_logprobs, least_mass
        self.calls = self.tokens_read = self.tokens_written = 0
        self.progress, self.label = False, ""
        self._fields: dict[str, Any] | None = None
        self._owner: str | None = None
        self._known: dict[JudgePrompt, list[ScoreReading]] = {}
        self._lists: bool | None = None
        self._whole = False

    def readings(self, asked: Sequence[JudgePrompt]) -> dict[JudgePrompt, list[ScoreReading]]:
        """What the judge says to each prompt, score by score; equal prompts are asked once."""
        waiting = [one for one in dict.fromkeys(asked) if one not in self._known]
        known = dict(self._known)
        for attempt in range(_AGAIN + 1):
            for one, readings in zip(waiting, self._wave(waiting, attempt), strict=True):
                if one not in known or not _failed(readings):
                    known[one] = readings
            # Where every number's probability is computed, the same would come out, at ten calls or more for each.
            again = [] if self.read_from == _DIGITS else waiting
            waiting = [one for one in again if _failed(known[one]) and not any(each.lost for each in known[one])]
        self._known = {one: readings for one, readings in known.items() if not any(each.lost for each in readings)}
        return known

    def _wave(self, asked: Sequence[JudgePrompt], attempt: int) -> list[list[ScoreReading]]:
        """The readings of each prompt from the replies to one more request."""
        if not asked:
            return []
        if not self.top_logprobs or self._lists is False:
            return self._from_texts(asked, attempt)
        requests = [self._request(one, seed=attempt, top=self.top_logprobs) for one in asked]
        replies = self._complete(requests)
        places = [self._places(one, reply) for one, reply in zip(asked, replies, strict=True)]
        self._learn(replies, [place for of_one in places for place in of_one])
        if self.read_from == _TEXTS:
            places = [[] for _ in places]
        numbers = self._numbers(requests, replies, places)
        readings = [
            self._of_places(*row) if row[2] else self._of_text(row[0], [row[1]])
            for row in zip(asked, replies, places, numbers, strict=True)
        ]
        unread = [row for row, of_one in enumerate(places) if not of_one and replies[row].error is None]
        if self.samples > 1 or attempt:
            sampled = self._from_texts([asked[row] for row in unread], attempt)
            for row, of_row in zip(unread, sampled, strict=True):
                readings[row] = of_row
        return readings

    def _learn(self, replies: Sequence[ChatReply], places: Sequence[Place]) -> None:
        """Notice whether the server lists log-probabilities, and whether the model writes numbers digit by digit."""
        if any(reply.error is None for reply in replies):
            self._lists = bool(self._lists) or any(map(has_logprobs, replies))
        self._whole |= any(place.whole for place in places)

    @property
    def read_from(self) -> str | None:
        """From what scores are read; None before anything is.

        Until a number above 9 is seen to be one token, single digits may be the beginnings of numbers.
        """
        if not self.top_logprobs or self._lists is False:
            return _TEXTS
        if self._lists is None:
            return None
        if self._whole:
            return "log-probabilities"
        return _DIGITS if self._owner in CONTINUING else _TEXTS

    def _places(self, one: JudgePrompt, reply: ChatReply) -> list[Place]:
        """Where each score is expected in a reply; empty if the server lists no tokens, or a score has no place."""
        if not has_logprobs(reply):
            return []
        parts = parts_of(_tokens(reply), len(one.scores))
        places = [place_at(reply.logprobs or (), start) for start, _ in parts]
        return [place for place in places if place is not None] if all(places) else []

    def _numbers(
        self, requests: Sequence[ChatRequest], replies: Sequence[ChatReply], places: Sequence[Sequence[Place]]
    ) -> list[list[dict[float, float] | str]]:
        """For each place, the probability of each number, or why that is not known."""
        if self._whole:
            return [[place.numbers for place in of_one] for of_one in places]
        digits = [
            [Digits(request, _tokens(reply)[: place.start], place) for place in of_one]
            for request, reply, of_one in zip(requests, replies, places, strict=True)
        ]
        follow([one for of_one in digits for one in of_one], self._complete)
        return [[one.error or one.numbers() for one in of_one] for of_one in digits]

    def _of_places(
        self,
        one: JudgePrompt,
        reply: ChatReply,
        places: Sequence[Place],
        numbers: Sequence[dict[float, float] | str],
    ) -> list[ScoreReading]:
        """The readings from the tokens of one reply."""
        parts = parts_of(_text(reply), len(one.scores))
        return [
            _lost(of_one)
            if isinstance(of_one, str)
            else reading_of(of_one, place.words(words), word_in(part, words), _text(reply), self.least_mass)
            for of_one, place, words, (_, part) in zip(numbers, places, one.words, parts, strict=True)
        ]

    def _from_texts(self, asked: Sequence[JudgePrompt], attempt: int) -> list[list[ScoreReading]]:
        """The readings of sampled texts."""
        if not asked:
            return []
        n = self.samples
        greedy = n == 1 and not attempt
        requests = [
            self._request(one, seed=attempt * n + number, temperature=0.0 if greedy else 1.0)
            for one in asked
            for number in range(n)
        ]
        replies = self._complete(requests)
        return [self._of_text(one, replies[row * n : (row + 1) * n]) for row, one in enumerate(asked)]

    def _of_text(self, one: JudgePrompt, replies: Sequence[ChatReply]) -> list[ScoreReading]:
        errors = [reply.error for reply in replies if reply.error is not None]
        if errors:
            return [_lost(errors[0]) for _ in one.scores]
        texts = [_text(reply) for reply in replies]
        parts = [[part for _, part in parts_of(text, len(one.scores))] for text in texts]
        readings = [
            of_texts([of_reply[number] for of_reply in parts], words, self.least_mass)
            for number, words in enumerate(one.words)
        ]
        return [replace(reading, text=" | ".join(texts)) for reading in readings]

    def _request(self, one: JudgePrompt, *, seed: int, temperature: float = 0.0, top: int | None = None) -> ChatRequest:
        if self._fields is None:
            self._owner = self.server.client.owner()
            self._fields = {**neutral_fields(self._owner), **self.server.extra}
        turn = {"role": "user", "content": one.content}
        return ChatRequest((turn,), LONGEST, temperature, seed=seed, top_logprobs=top, extra=self._fields)

    def _complete(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        try:
            replies = self.server.complete(requests, progress=self.progress, label=self.label)
        except PersonaProbeError as error:
            if self.top_logprobs and "logprobs" in str(error):
                raise PersonaProbeError(
                    f"{error}. The server may list fewer log-probabilities, or none: give top_logprobs=5, or "
                    "top_logprobs=0 to read texts"
                ) from error
            raise
        self.calls += len(replies)
        self.tokens_read += sum(reply.prompt_tokens or 0 for reply in replies)
        self.tokens_written += sum(reply.completion_tokens or 0 for reply in replies)
        return replies


def _failed(readings: Sequence[ScoreReading]) -> bool:
    """Whether a reply lacks a score; one that says REFUSAL or CODE need not have any."""
    return any(reading.failed for reading in readings) and not any(reading.refused for reading in readings)


def _lost(why: str) -> ScoreReading:
    return ScoreReading(np.nan, np.nan, refused=False, text=why, lost=True)


def _tokens(reply: ChatReply) -> str:
    """The text of a reply's tokens, with the spaces around it."""
    return "".join(token.token for token in reply.logprobs or ())


def _text(reply: ChatReply) -> str:
    """What the judge said; the server's own refusal, or why the reply ends, where there is no text."""
    if reply.text is not None:
        return reply.text.strip()
    return reply.refusal or f"(no text, finish_reason {reply.finish_reason!r})"
