"""How long work of each kind takes: whoever samples, reads, trains or judges says so, whoever plans listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Kind = Literal["sampling", "reading", "training", "judging"]
KINDS: tuple[Kind, ...] = ("sampling", "reading", "training", "judging")
"""Kinds of work, each with its own speed: answers, forward passes over texts, fine-tuning, and the judge."""


@dataclass
class Spent:
    """Work of one kind that was done.

    Attributes:
        seconds: how long it took.
        tokens: how many tokens a model read or wrote for it, an answer counted at its greatest length.
        answers: how many answers were judged.
    """

    seconds: float = 0.0
    tokens: int = 0
    answers: int = 0


_LISTENING: ContextVar[dict[Kind, Spent] | None] = ContextVar("listening", default=None)
_BUSY: ContextVar[bool] = ContextVar("busy", default=False)


@contextmanager
def clocked() -> Iterator[dict[Kind, Spent]]:
    """The work that is done inside, by kind.

    >>> with clocked() as spent, working("reading") as reading:
    ...     reading.tokens += 12
    >>> spent["reading"].tokens, spent["reading"].seconds > 0
    (12, True)
    """
    spent: dict[Kind, Spent] = {}
    token = _LISTENING.set(spent)
    try:
        yield spent
    finally:
        _LISTENING.reset(token)


@contextmanager
def working(kind: Kind) -> Iterator[Spent]:
    """Say that work of a kind is done inside; add what was done to what it yields.

    Work inside other work belongs to that and is not counted again, nor is work that an error ended.
    """
    spent, listening = Spent(), _LISTENING.get()
    if listening is None or _BUSY.get():
        yield spent
        return
    token, start = _BUSY.set(True), time.perf_counter()
    try:
        yield spent
    finally:
        _BUSY.reset(token)
    total = listening.setdefault(kind, Spent())
    total.seconds += time.perf_counter() - start
    total.tokens += spent.tokens
    total.answers += spent.answers
