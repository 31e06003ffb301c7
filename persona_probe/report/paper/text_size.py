"""The size of text, accurate enough to decide where it is placed."""

from __future__ import annotations

import html
import re
import textwrap

_TAG = re.compile(r"<[^>]*>")
_BREAK = re.compile(r"<br\s*/?>")
_EM = 0.5
"""The mean width of a letter of a sans-serif font, relative to its size."""
LINE = 1.35
"""The height of a line, relative to the size of its letters."""


def lines_of(text: str | None) -> list[str]:
    """The lines of a label without plotly's markup."""
    return [html.unescape(_TAG.sub("", line)) for line in _BREAK.split(text or "")]


def text_width(text: str | None, size: float) -> float:
    """The width of a label (of its longest line) in pixels."""
    return max(len(line) for line in lines_of(text)) * _EM * size


def wrapped(text: str, width: float, size: float) -> str:
    """A label that is broken between words to fit ``width`` pixels; a label with markup is not changed."""
    if text_width(text, size) <= width or _TAG.search(text):
        return text
    characters = max(8, int(width / (_EM * size)))
    plain = textwrap.wrap(html.unescape(text), characters, break_long_words=False, break_on_hyphens=False)
    return "<br>".join(html.escape(line, quote=False) for line in plain)
