"""Where a figure's keys and its note are placed, so that they touch nothing at any width."""

from __future__ import annotations

import textwrap
from typing import Any

import plotly.graph_objects as go

from persona_probe.figures.text import escape_markup

_CHARACTERS = 104
"""Length of a note's line: what fits on the narrowest page (760 px)."""
_TITLE, _LINE = 46, 18
"""Heights in pixels: of the title with its margin, of one line of the note."""
_LABEL, _LABEL_LINES = 20, 2
"""A label's longest line, in characters, and the largest number of lines."""


def keys_below(figure: go.Figure, *, note: str = "", keys: bool = True, top: int = 0, **margin: int) -> go.Figure:
    """Put the keys below the plot, in as many lines as they need, and ``note`` under the title.

    Args:
        figure: drawn, with its title set.
        note: what is drawn (n, intervals, nulls), in plain sentences; names in it already escaped.
        keys: whether there are keys at all.
        top: pixels between the note and the plot, for titles of panels.
        **margin: other margins in pixels (``l``, ``r``, ``b``); axes add what their labels need.
    """
    lines = textwrap.wrap(
        note.replace(" %", "\N{NO-BREAK SPACE}%"), _CHARACTERS, break_long_words=False, break_on_hyphens=False
    )
    title: dict[str, Any] = {"yref": "container", "y": 1, "pad": {"t": 14, "l": 12}}
    if lines:
        title["subtitle"] = {"text": "<br>".join(lines), "font": {"size": 13}}
    # Plotly places a single line lower than the first of several.
    height = _TITLE + _LINE * len(lines) + (8 if len(lines) == 1 else 0) + top
    # Placed relative to the container, not the plot, so that lines of keys push the plot up and do not cover its axis.
    legend = {"yref": "container", "y": 0, "yanchor": "bottom", "orientation": "h", "x": 0, "xanchor": "left"}
    return figure.update_layout(
        title=title, legend=legend, showlegend=keys, margin={"t": height, "b": 56, "pad": 0, **margin}
    )


def label(name: object) -> str:
    """An untrusted name as a tick's label: escaped, in at most two short lines."""
    lines = textwrap.wrap(str(name), _LABEL, max_lines=_LABEL_LINES, placeholder="…") or [""]
    return "<br>".join(escape_markup(line) for line in lines)
