"""Tokens as HTML, each shaded by its activation; imports no model, so that reports can use it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from markupsafe import Markup, escape

from persona_probe.figures.text import INVISIBLE

DARKEST = 0.6
"""Opacity at the strongest activation: text on it has a contrast of 4.5, on a light and on a dark page."""
_HUE = "0, 114, 178"  # Okabe and Ito's blue; only its opacity varies, so that no two colours must be distinguished
_LINE = (
    "display: block; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; "
    "print-color-adjust: exact; -webkit-print-color-adjust: exact"
)
_NOTHING = re.compile(r"[\u200c\u200d\ufe00-\ufe0f]+")


def shown_token(token: str) -> str:
    """A token without invisible characters: line ends as ``↵``, others as their code points.

    Examples:
        >>> shown_token(f"zero{chr(0x200B)}width")
        'zero[U+200B]width'
    """
    marked = INVISIBLE.sub(_named, token)
    if _NOTHING.fullmatch(marked):
        marked = "".join(f"[U+{ord(character):04X}]" for character in marked)
    return marked.replace("\n", "↵\n").replace("\t", "→\t")


def _named(match: re.Match[str]) -> str:
    return "↵" if match[0] == "\r" else f"[U+{ord(match[0]):04X}]"


def shown_activation(value: float) -> str:
    """An activation with three significant digits, never in powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def highlight(
    tokens: Sequence[str],
    activations: Sequence[float | None],
    *,
    start: int = 0,
    stop: int | None = None,
    peak: int | None = None,
    scale: float | None = None,
) -> Markup:
    """Tokens in a row, shaded by activation; each token's title states its activation; all text is escaped.

    Args:
        tokens: the pieces of a text.
        activations: one per token; None, NaN and values that are not positive are not shaded.
        start: where the span that counts begins; tokens outside are smaller.
        stop: where the span ends.
        peak: the token to underline.
        scale: the activation that is shaded darkest; default the largest.
    """
    top = scale or max((value for value in activations if value is not None and value > 0), default=0.0)
    end = len(tokens) if stop is None else stop
    looks = [
        _look(value, top, outside=not start <= place < end, peak=place == peak)
        for place, value in enumerate(activations)
    ]
    # Silent tokens that look alike share an element: this makes pages much smaller.
    keys = [(style, title, place if title else -1) for place, (style, title) in enumerate(looks)]
    parts = []
    for (style, title, _), run in groupby(zip(keys, tokens, strict=True), key=itemgetter(0)):
        text = escape("".join(shown_token(token) for _, token in run))
        parts.append(Markup("<span{}{}>{}</span>").format(style, title, text) if style else text)
    return Markup('<span dir="auto" style="{}">{}</span>').format(_LINE, Markup("").join(parts))


def _look(value: float | None, top: float, *, outside: bool, peak: bool) -> tuple[Markup, Markup]:
    """A token's style and title, as attributes; empty where there is nothing to show."""
    style, title = [], Markup("")
    if value is not None and value > 0 and top > 0:
        style.append(f"background-color: rgba({_HUE}, {DARKEST * min(value / top, 1.0):.2f})")
        title = Markup(' title="activation {}"').format(shown_activation(value))
    if outside:
        style.append("font-size: 0.85em")
    if peak:
        style.append("text-decoration: underline; font-weight: 700")
    return (Markup(' style="{}"').format("; ".join(style)) if style else Markup("")), title
