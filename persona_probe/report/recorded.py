"""Settings and numbers of a run's record in plain words; what it does not hold is said to be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from persona_probe.figures.text import is_number, visible
from persona_probe.report.readings import lookup
from persona_probe.runs.record import RunRecord

_SHOWN = 12
"""Characters of a hash that are enough to tell models apart."""


def settings_of(run: RunRecord, section: str) -> Mapping[str, Any]:
    """A section of the settings; empty where the manifest has none."""
    found = lookup(run.manifest, "config", section)
    return found if isinstance(found, Mapping) else {}


def hash_of(model: object) -> str:
    """The start of the hash of a model's weights."""
    found = model.get("hash") if isinstance(model, Mapping) else None
    return f"hash {one_line(found)[:_SHOWN]}" if found else "hash not recorded"


def listed(*pairs: tuple[str, str]) -> str:
    """``rank 1, alpha 2``."""
    return ", ".join(f"{name} {value}" for name, value in pairs)


def joined(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def number_of(value: object) -> str:
    """A number, or that none was recorded."""
    return f"{value:g}" if is_number(value) else "not recorded"


def one_line(value: object) -> str:
    """Untrusted text as one line with nothing invisible in it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(one_line, value))
    return "not recorded" if value is None else " ".join(visible(str(value)).split())
