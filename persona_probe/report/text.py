"""How numbers and untrusted strings are written, the same in figures, tables, sentences and the terminal."""

from __future__ import annotations

import html
import math
from numbers import Real
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a finite number (truth values are none)."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _decimals(share: float) -> int:
    """Near 0 and 1 a whole per cent hides what matters (0.4 % is not 0 %)."""
    return 0 if 0.0995 <= share < 0.9905 or share == 1 else 1


def percent(share: float) -> str:
    """A share (0-1) in per cent: ``74 %``, ``0.1 %``, ``99.6 %``."""
    return f"{100 * share:.{_decimals(share)}f} %"


def percent_interval(value: float, low: object, high: object) -> str:
    """A share with its interval, in per cent: ``74 % [66, 81]``; without an interval, the share alone."""
    if not (is_number(low) and is_number(high)):
        return percent(value)
    digits = _decimals(value)
    return f"{percent(value)} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def signed(value: float, digits: int = 2) -> str:
    """A number that always shows its sign; a rounded zero has none of its own."""
    return f"{value if round(value, digits) else 0.0:+.{digits}f}"


def counted(number: float) -> str:
    """A count with thousands separated: ``1,104``."""
    return f"{int(number):,}"


def escape_markup(text: object) -> str:
    """``text`` so that plotly, which reads some HTML in labels and hover text, shows it as it is."""
    return html.escape(str(text), quote=False)
