"""Which failures of a request a retry can mend, how long to wait before it, and what to say of those it cannot mend."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FIRST_WAIT = 0.5
"""Seconds before the first retry; each further wait is twice as long, up to `LONGEST_WAIT`."""
LONGEST_WAIT = 60.0
LONGEST_ASKED = 600.0
"""Seconds that are waited at most when a server says how long (Retry-After); if it says longer, the request failed."""
_AGAIN = (408, 409, 425, 429)
_EVERY_REQUEST = (401, 403, 404)
_OF_THIS_REQUEST = (400, 413, 422)
_NO_MONEY = ("insufficient_quota", "billing_not_active")


@dataclass(frozen=True)
class Failure:
    """Why a request failed.

    Attributes:
        reason: a sentence.
        again: whether a retry may help.
        wait: for how many seconds the server asks to wait; None if it does not say.
        status: the HTTP status; None if nothing came back.
        every: whether each other request must fail in the same way (a wrong key, no such model).
        own: whether it lies in this request (too long, a field that the server does not know).
    """

    reason: str
    again: bool
    wait: float | None = None
    status: int | None = None
    every: bool = False
    own: bool = False


def of_status(status: int, words: str, code: str | None, headers: Mapping[str, str]) -> Failure:
    """The failure that an HTTP status means.

    Args:
        status: an error's status (400 or above).
        words: what the server says of it.
        code: the server's own name of the error.
        headers: of the response; they may say how long to wait.
    """
    reason = f"the server answered {status}: {words}"
    wait = asked_wait(headers)
    if code in _NO_MONEY:
        return Failure(reason, again=False, status=status, every=True)
    if status in _AGAIN or status >= 500:
        if wait is not None and wait > LONGEST_ASKED:
            reason += f" (it asks to wait {wait:.0f} seconds)"
            return Failure(reason, again=False, status=status, every=True)
        return Failure(reason, again=True, wait=wait, status=status)
    return Failure(reason, again=False, status=status, every=status in _EVERY_REQUEST, own=status in _OF_THIS_REQUEST)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """For how many seconds the headers ask to wait (``Retry-After``: seconds or a date; ``retry-after-ms``).

    >>> asked_wait({"retry-after": "2"}), asked_wait({"retry-after-ms": "150"}), asked_wait({"retry-after": "soon"})
    (2.0, 0.15, None)
    """
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        given = headers.get(name)
        if given is None:
            continue
        try:
            return max(0.0, float(given) * scale)
        except ValueError:
            pass
        try:
            return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
        except ValueError:
            pass
    return None


def backoff(attempt: int) -> float:
    """Seconds before retry number ``attempt`` (from 0): twice as long each time, times a random 0.5 to 1.

    The random part keeps requests that failed together from coming back together.
    """
    return float(min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.5, 1.0))


def server_words(body: Any, text: str) -> tuple[str, str | None]:
    """What a server says of an error, on one line, and its own name of the error.

    Args:
        body: the JSON of the response; None if it is not JSON.
        text: the response as text.
    """
    error = body.get("error", body) if isinstance(body, Mapping) else None
    message = error.get("message", error.get("detail")) if isinstance(error, Mapping) else error
    words = " ".join(str(message if message else text).split())
    code = error.get("code") or error.get("type") if isinstance(error, Mapping) else None
    return words[:500].rstrip(".") or "nothing more", str(code) if code else None
