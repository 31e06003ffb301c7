"""Reading ``results.json``: any part of it may be missing, and a rate may come with or without its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona_probe.figures.text import is_number, percent_interval


@dataclass(frozen=True)
class Rate:
    """A share (0-1) with, where known, its 95 % interval and the number of answers behind it."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def __str__(self) -> str:
        return percent_interval(self.value, self.low, self.high)

    def above(self, other: Rate) -> bool:
        """Whether this interval lies wholly above the other (a bare value counts as its own interval)."""
        low = self.value if self.low is None else self.low
        return low > (other.value if other.high is None else other.high)


def lookup(results: Mapping[str, Any], *keys: str) -> Any:
    """What lies at ``results[key][key]...``, or None where the path ends early."""
    found: Any = results
    for key in keys:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def read_number(results: Mapping[str, Any], *keys: str) -> float | None:
    """The finite number at a path, or None; for ``{"value": ...}`` its value."""
    found = lookup(results, *keys)
    if isinstance(found, Mapping):
        found = found.get("value")
    return float(found) if is_number(found) else None


def read_rate(results: Mapping[str, Any], *keys: str) -> Rate | None:
    """The rate at a path (a bare number, or ``{value, low, high, n}``), or None."""
    value = read_number(results, *keys)
    if value is None:
        return None
    low, high, n = (read_number(results, *keys, part) for part in ("low", "high", "n"))
    return Rate(value, low, high, None if n is None else int(n))
