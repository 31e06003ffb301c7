"""Which tokens an intervention acts on, in words: ``generation``, ``first_k:8``, ``positions:0,-1``, ``turn:2``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from persona_probe.errors import PersonaProbeError

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
        kind: one of `SCOPES`. ``generation``: the last prompt token and the answer but its last token, the positions
            that decide what is said. ``response``: the answer's tokens. ``prompt``: what comes before the answer, with
            the assistant header. ``last_prompt_token``: what generation continues from. ``all``: every token.
            ``first_k``: of ``generation``, those that decide the first k tokens. ``window``: those that decide the
            generated tokens from one to before another, counted from 0. ``positions``: tokens counted from the
            dialogue's first, without padding; below 0 from the prompt's end (-1 is its last token). ``turn``: the
            content of one message, counted from 0 with the system message, below 0 from the last.
        numbers: of those that take some.
    """

    kind: str
    numbers: tuple[int, ...] = ()

    def __str__(self) -> str:
        """As it is written."""
        separator = "-" if self.kind == "window" else ","
        return f"{self.kind}:{separator.join(map(str, self.numbers))}" if self.numbers else self.kind

    @property
    def everywhere(self) -> bool:
        """Whether it is every token, so that nothing needs to be known about the batch."""
        return self.kind == "all"


def parse_scope(scope: str | Scope) -> Scope:
    """The scope that is written ``generation``, ``first_k:8``, ``window:4-12``, ``positions:0,-1`` or ``turn:1``.

    Raises:
        PersonaProbeError: if there is no such scope, with a list of those there are.
    """
    if isinstance(scope, Scope):
        return scope
    name, _, rest = str(scope).partition(":")
    if scope in _PLAIN:
        return Scope(name)
    if name in _NUMBERS and re.fullmatch(_NUMBERS[name], rest.replace(" ", "")):
        separator = "-" if name == "window" else ","
        numbers = tuple(int(number) for number in rest.replace(" ", "").split(separator))
        if (name == "first_k" and numbers[0] < 1) or (name == "window" and numbers[0] >= numbers[1]):
            raise PersonaProbeError(f"scope {scope!r} holds no token")
        return Scope(name, numbers)
    raise PersonaProbeError(f"unknown scope {scope!r}: choose one of {', '.join(_PLAIN)}, or {_WRITTEN}")


def decides(scope: Scope) -> tuple[int, float] | None:
    """``(from, to)``: the generated tokens whose deciding positions ``scope`` names; None if it is of another kind."""
    made: dict[str, Callable[[], tuple[int, float]]] = {
        "generation": lambda: (0, float("inf")),
        "last_prompt_token": lambda: (0, 1),
        "first_k": lambda: (0, scope.numbers[0]),
        "window": lambda: (scope.numbers[0], scope.numbers[1]),
    }
    return made[scope.kind]() if scope.kind in made else None
