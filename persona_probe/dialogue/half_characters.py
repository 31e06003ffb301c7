"""Lone surrogates: halves of characters (of an emoji, mostly), which JSON can hold and no tokenizer can read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_HALF = re.compile("[\\ud800-\\udfff]")


def mended(value: Any) -> Any:
    r"""``value`` with two halves of a character put together, and lone ones replaced by U+FFFD, in texts at any depth.

    Examples:
        >>> mended({"content": "Bread \ud83c"})
        {'content': 'Bread �'}
        >>> mended("\ud83c\udf5e") == "\N{BREAD}"
        True
    """
    if isinstance(value, str):
        return value if half_in(value) is None else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {mended(name): mended(part) for name, part in value.items()}
    return [mended(part) for part in value] if isinstance(value, list) else value


def half_in(value: Any) -> str | None:
    r"""The first lone surrogate in texts at any depth, as JSON writes it (``\ud83c``), or None."""
    if isinstance(value, str):
        found = None if value.isascii() else _HALF.search(value)
        return None if found is None else f"\\u{ord(found[0]):04x}"
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    halves = map(half_in, value) if isinstance(value, list | tuple) else ()
    return next((half for half in halves if half is not None), None)
