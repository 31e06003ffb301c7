"""How numbers and untrusted strings are written, the same in figures, tables, sentences and the terminal."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable
from numbers import Real
from typing import TypeGuard

NOTHING = "–"
"""What is written in place of a missing number."""
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""Control characters, overrides of direction, halves of surrogate pairs, and characters without width: a reader must
see that something is there. Joiners inside a word (U+200C, U+200D) belong to the spelling in many scripts, and stay."""


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite number (truth values are not numbers)."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def is_true(value: object) -> bool:
    """Whether a table's cell means yes: Python's and numpy's True, and the word that a CSV file stores for them."""
    return str(value) == "True"


def _decimals(share: float) -> int:
    """Decimals of a percentage; near 0 and 1 whole per cents would hide what matters (0.4 % is not 0 %)."""
    return 0 if 0.0995 <= share < 0.9905 or share == 1 else 1


def percent(share: float) -> str:
    """A share (0-1) in per cent.

    Examples:
        >>> percent(0.74), percent(0.001), percent(0.996)
        ('74 %', '0.1 %', '99.6 %')
    """
    return f"{100 * share:.{_decimals(share)}f} %"


def percent_interval(value: float, low: object, high: object) -> str:
    """A share with its interval, in per cent; without an interval, only the share.

    Examples:
        >>> percent_interval(0.74, 0.66, 0.81)
        '74 % [66, 81]'
    """
    if not (is_number(low) and is_number(high)):
        return percent(value)
    digits = _decimals(value)
    return f"{percent(value)} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def signed(value: float, digits: int = 2) -> str:
    """A number that always shows its sign; a rounded zero has none of its own."""
    return f"{value if round(value, digits) else 0.0:+.{digits}f}"


def signed_interval(value: float, low: object, high: object) -> str:
    """A number that shows its sign, with its interval if it has one.

    Examples:
        >>> signed_interval(0.75, 0.68, 0.82)
        '+0.75 [0.68, 0.82]'
    """
    return f"{signed(value)} [{low:.2f}, {high:.2f}]" if is_number(low) and is_number(high) else signed(value)


def counted(number: object) -> str:
    """A count with thousands separated: ``1,104``; a dash if it is not known."""
    return f"{int(number):,}" if is_number(number) else NOTHING


def count_range(counts: Iterable[float]) -> str:
    """The smallest and the largest of some counts: ``96 to 384``, or ``384`` if all are equal."""
    known = [number for number in counts if is_number(number)]
    low, high = counted(min(known, default=None)), counted(max(known, default=None))
    return low if low == high else f"{low} to {high}"


def visible(text: str) -> str:
    """``text`` in which a replacement character stands for each character that nobody would see (`INVISIBLE`).

    Line breaks and tabs stay.
    """
    return INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", text)


def escape_markup(text: object) -> str:
    """``text`` escaped so that plotly, which interprets some HTML in labels and hover text, shows it unchanged."""
    return html.escape(visible(str(text)), quote=False)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
