"""Legends in print: their entries, how many lines they need, and where they are placed."""

from __future__ import annotations

import plotly.graph_objects as go

from persona_probe.report.paper.text_size import lines_of, text_width, wrapped

ROW = 21.0
"""Pixels of a line of a legend."""
_KEY = 40.0
"""Pixels of an entry in addition to its text."""
_FONT = 13.0


def legends_of_panels(figure: go.Figure) -> list[str]:
    """The legends that belong to one panel each; empty if the figure has only one legend."""
    names = sorted({trace.legend for trace in figure.data if trace.legend})
    return names if len(names) > 1 else []


def entries_of(figure: go.Figure, legend: str = "legend") -> list[str]:
    """The names in a legend."""
    shown: dict[str, str] = {}
    for number, trace in enumerate(figure.data):
        if trace.showlegend is False or not trace.name or (trace.legend or "legend") != legend:
            continue
        shown.setdefault(trace.legendgroup or str(number), trace.name)
    if figure.layout.showlegend is False or (len(figure.data) == 1 and figure.layout.showlegend is None):
        return []
    return list(shown.values())


def rows_of(entries: list[str], width: float, *, upright: bool = False) -> int:
    """The number of lines of plotly's horizontal legend: one row, or columns as wide as the widest entry."""
    if not entries:
        return 0
    widths = [text_width(name, _FONT) + _KEY for name in entries]
    lines = [len(lines_of(name)) for name in entries]
    columns = len(entries) if sum(widths) <= width else max(1, int(width // max(widths)))
    columns = 1 if upright else columns
    return sum(max(lines[start : start + columns]) for start in range(0, len(lines), columns))


def stands_below(figure: go.Figure) -> bool:
    """Whether the figure's legend is under its plot already."""
    legend = figure.layout.legend
    return legend.y is not None and (legend.y < 0 or (legend.y == 0 and legend.yref == "container"))


def put_below(figure: go.Figure, width: float) -> float:
    """Put the legend under everything else and return the pixels that it needs."""
    entries = entries_of(figure)
    if not entries or legends_of_panels(figure):
        return 0.0
    room = width - 24
    for trace in figure.data:
        if trace.name and trace.showlegend is not False:
            trace.name = wrapped(trace.name, room - _KEY, _FONT)
    upright = figure.layout.legend.orientation == "v" and len(entries) > 2
    rows = rows_of(entries_of(figure), room, upright=upright)
    figure.update_layout(
        legend={
            "orientation": "h",
            # A vertical legend would be given a strip of the figure's width.
            "entrywidth": 1 if upright else None,
            "entrywidthmode": "fraction" if upright else None,
            "xref": "container",
            "yref": "container",
            "x": 0.02,
            "xanchor": "left",
            "y": 0.0,
            "yanchor": "bottom",
            "font": {"size": _FONT},
        }
    )
    return rows * ROW + 12
