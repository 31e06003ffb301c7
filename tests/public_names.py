"""What documentation and notebooks may call: the flat names of the package, and those of its rooms."""

from __future__ import annotations

import re
from types import ModuleType

import persona_probe as pp

_USED = re.compile(r"\bpp\.([A-Za-z_]\w*)(?:\.([A-Za-z_]\w*))?")


def public_names() -> set[str]:
    """Every public name as it stands behind ``pp.``: flat (``load``), or in its room (``latents.load_sae``)."""
    names = set(pp.__all__)
    rooms = {name: room for name in pp.__all__ if isinstance(room := getattr(pp, name), ModuleType)}
    return names | {f"{name}.{inner}" for name, room in rooms.items() for inner in room.__all__}


def unknown_names(text: str) -> list[str]:
    """The names behind ``pp.`` in a text that the package does not have."""
    known = public_names()
    rooms = {name.partition(".")[0] for name in known if "." in name}
    used = {f"{first}.{second}" if first in rooms and second else first for first, second in _USED.findall(text)}
    return sorted(used - known - {"NAME"})
