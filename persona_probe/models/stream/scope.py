"""Which tokens an intervention acts on, as text: ``generation``, ``first_k:8``, ``positions:0,-1``, ``turn:2``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from persona_probe.errors import PersonaProbeError, check_types

_PLAIN = ("all", "prompt", "response", "generation", "last_prompt_token")
_WRITTEN = "first_k:K, window:FROM-TO, positions:I,J,... or turn:I"
_NUMBERS: dict[str, str] = {
    "first_k": r"\d+",
    "window": r"\d+-\d+",
    "positions": r"-?\d+(,-?\d+)*",
    "turn": r"-?\d+",
}
SCOPES: tuple[str, ...] = (*_PLAIN, *_NUMBERS)


@dataclass(frozen=True)
class Scope:
    """The tokens that an intervention acts on; made by `parse_scope`.

    Attributes:
        kind: one of `SCOPES`. ``generation``: the last prompt token and all answer tokens except the last: the
            positions at which the answer's tokens are decided. ``response``: the answer's tokens. ``prompt``: what
            comes before the answer, with the assistant header. ``last_prompt_token``: the token that generation
            continues from. ``all``: every token. ``first_k``: the positions of ``generation`` that decide the first k
            answer tokens. ``window:A-B``: those that decide answer tokens A to B - 1, counted from 0. ``positions``:
            tokens counted from the dialogue's first one, without padding; below 0 from the prompt's end (-1 is its last
            token). ``turn``: the content of one message, counted from 0 (a system message counts), below 0 from the
            last.
        numbers: the numbers in the text, for kinds that take some.

    >>> import persona_probe as pp
    >>> str(pp.models.Scope("window", (4, 12)))
    'window:4-12'
    """

    kind: str
    numbers: tuple[int, ...] = ()

    def __str__(self) -> str:
        """The scope as text."""
        separator = "-" if self.kind == "window" else ","
        return f"{self.kind}:{separator.join(map(str, self.numbers))}" if self.numbers else self.kind

    @property
    def everywhere(self) -> bool:
        """Whether the scope is every token, so that nothing needs to be known about the batch."""
        return self.kind == "all"


def parse_scope(scope: str | Scope) -> Scope:
    """The scope that a text names: ``generation``, ``first_k:8``, ``window:4-12``, ``positions:0,-1``, ``turn:1``, ...

    Raises:
        PersonaProbeError: if there is no such scope; the message lists all scopes.

    >>> parse_scope("first_k:8")
    Scope(kind='first_k', numbers=(8,))
    """
    check_types(scope=(scope, str, Scope))
    if isinstance(scope, Scope):
        return scope
    name, _, rest = str(scope).partition(":")
    if scope in _PLAIN:
        return Scope(name)
    if name in _NUMBERS and re.fullmatch(_NUMBERS[name], rest.replace(" ", "")):
        separator = "-" if name == "window" else ","
        numbers = tuple(int(number) for number in rest.replace(" ", "").split(separator))
        if (name == "first_k" and numbers[0] < 1) or (name == "window" and numbers[0] >= numbers[1]):
            raise PersonaProbeError(f"scope {scope!r} contains no token")
        return Scope(name, numbers)
    raise PersonaProbeError(f"unknown scope {scope!r}: choose one of {', '.join(_PLAIN)}, or {_WRITTEN}")


def decides(scope: Scope) -> tuple[int, float] | None:
    """``(from, to)``: the answer tokens whose deciding positions are in ``scope``; None for scopes of other kinds."""
    made: dict[str, Callable[[], tuple[int, float]]] = {
        "generation": lambda: (0, float("inf")),
        "last_prompt_token": lambda: (0, 1),
        "first_k": lambda: (0, scope.numbers[0]),
        "window": lambda: (scope.numbers[0], scope.numbers[1]),
    }
    return made[scope.kind]() if scope.kind in made else None
