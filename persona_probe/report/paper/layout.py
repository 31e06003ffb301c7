"""The layout of a figure for print: no title, legends that fit, and panels below one another in a narrow column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from persona_probe.figures.template import build_template
from persona_probe.report.paper.blocks import find_blocks, shares_rows, side_by_side, stack
from persona_probe.report.paper.legends import ROW, entries_of, legends_of_panels, put_below, rows_of, stands_below
from persona_probe.report.paper.narrow import (
    AXIS,
    at_the_right,
    break_at_brackets,
    foot_notes,
    numbers_to_rows,
    small_cells,
    squeeze,
    without_hatching,
)
from persona_probe.report.paper.text_size import LINE, lines_of

NARROW = 600.0
"""Panels do not fit side by side in fewer pixels than this."""
_SCREEN = 760.0
"""The width on screen for which figures are made."""
_NUMBERS = 150
"""Pixels for numbers at the right of the plot."""
_HEADING = 15.0
"""The greatest size of headings in a figure."""


@dataclass(frozen=True)
class Fitted:
    """A figure that is ready to be rendered, and the pixels of its layout."""

    figure: go.Figure
    width: float
    height: float


def fit(figure: go.Figure, width: float, *, height: float | None = None, title: bool = False) -> Fitted:
    """A copy of ``figure`` with a layout for print.

    Args:
        figure: any figure of the package.
        width: the width in pixels.
        height: the height in pixels; default as much as the figure needs.
        title: whether to show the figure's title; papers have captions instead.
    """
    drawn = go.Figure(figure)
    template = build_template()
    drawn.update_layout(template=template, autosize=False)
    margin = {side: _first(drawn.layout.margin[side], template.layout.margin[side]) for side in "lrtb"}
    plot = float(_first(drawn.layout.height, template.layout.height)) - margin["t"] - margin["b"]
    if stands_below(figure):
        plot -= ROW * rows_of(entries_of(drawn), _SCREEN, upright=drawn.layout.legend.orientation == "v")
    narrow = width < NARROW
    without_hatching(drawn)
    # The note under a figure's title says the same as the caption.
    drawn.update_layout(title={"text": drawn.layout.title.text if title else "", "subtitle": {"text": ""}})
    drawn.for_each_annotation(lambda note: note.update(font_size=min(_first(note.font.size, 12.5), _HEADING)))
    blocks = find_blocks(drawn) if _has_axes(drawn) else []
    of_panels = legends_of_panels(drawn)
    if narrow:
        plot = numbers_to_rows(drawn, plot, margin)
        small_cells(drawn, width)
    foot = foot_notes(drawn, width)
    below = put_below(drawn, width) if narrow or stands_below(figure) else 0.0
    panel_rows = {name: rows_of(entries_of(drawn, name), width - 130) for name in of_panels}
    if narrow and side_by_side(blocks):
        if shares_rows(drawn, blocks):
            squeeze(drawn, blocks, width)
        else:
            break_at_brackets(drawn)
            plot = stack(drawn, blocks, plot, _each(plot, len(blocks)), panel_rows)
    top = _top(drawn, width, panel_rows, on_top=not below, plot=plot) + (34 if title else 0)
    bottom = (AXIS if below or foot or not of_panels else float(margin["b"])) + foot + below
    if narrow:
        # Numbers that are still at the right of the plot need room.
        right = _NUMBERS if any(map(at_the_right, drawn.layout.annotations)) else min(margin["r"], 18)
        drawn.update_layout(margin={"l": min(margin["l"], 58), "r": right})
        drawn.update_xaxes(title_standoff=6)
    full = plot + top + bottom if height is None else height
    drawn.update_layout(width=width, height=full, margin={"t": top, "b": bottom})
    return Fitted(drawn, width, full)


def _each(plot: float, count: int) -> float:
    """Pixels for each stacked block: about as many as a row had, within limits."""
    return min(max(plot * 0.72, 170.0), 300.0) if count <= 3 else 140.0


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def _has_axes(figure: go.Figure) -> bool:
    return any(name.startswith("xaxis") for name in figure.layout)


def _top(figure: go.Figure, width: float, panel_rows: dict[str, int], *, on_top: bool, plot: float) -> float:
    """Pixels above the plot, for headings, and for a legend if it is there."""
    high = [note for note in figure.layout.annotations if note.yref in (None, "paper") and (note.y or 0) >= 0.98]
    rise = max(((note.y - 1.0) * plot + LINE * note.font.size * len(lines_of(note.text)) for note in high), default=0.0)
    top = 14.0 + max(rise, 0.0)
    if not on_top or panel_rows:
        return top
    rows = rows_of(entries_of(figure), width - 110)
    if rows:
        figure.update_layout(legend={"y": 1.0 + (top - 6) / plot, "yanchor": "bottom"})
        top += rows * ROW + 6
    return top
