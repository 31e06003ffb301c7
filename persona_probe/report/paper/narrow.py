"""Changes that make parts of a figure fit where there is less room than on a screen."""

from __future__ import annotations

import re
from typing import Any

import plotly.graph_objects as go

from persona_probe.report.paper.blocks import Block
from persona_probe.report.paper.text_size import LINE, lines_of, text_width, wrapped

AXIS = 52.0
"""Pixels below the plot for tick labels and the axis title."""
_LETTER = 0.5
"""Width of a digit, in its size."""
_READABLE = 11.0
"""Pixels of letters that have 6.6 points in print; if two decimals would be smaller, only one is written."""
_MINUS = "−"
_DECIMALS = re.compile(rf"{_MINUS}?\d+\.\d+")


def without_hatching(figure: go.Figure) -> None:
    """Make hatched bars hollow, because browsers put hatching into a PDF as megabytes of pixels."""
    for trace in figure.select_traces(selector={"type": "bar"}):
        shapes = trace.marker.pattern.shape
        if shapes is None:
            continue
        colour = trace.marker.color
        many = not isinstance(shapes, str)
        hollow = [bool(shape) for shape in (shapes if many else [shapes] * len(trace.y))]
        colours = [colour] * len(hollow) if isinstance(colour, str) or colour is None else list(colour)
        fills = ["rgba(255, 255, 255, 1)" if empty else fill for empty, fill in zip(hollow, colours, strict=True)]
        trace.marker.update(color=fills, line={"color": colours, "width": 1.6}, pattern={"shape": ""})


def foot_notes(figure: go.Figure, width: float) -> float:
    """Put notes under the axis title, broken to the width, and return the pixels that they need."""
    taken = 0.0
    for note in figure.layout.annotations:
        if note.xref == "paper" and note.yref == "paper" and (note.y or 0) < -0.05:
            note.update(text=wrapped(note.text or "", width - 90, 12), font_size=12, align="left")
            note.update(x=0, xanchor="left", y=0, yanchor="top", yshift=-(AXIS - 2 + taken))
            taken += LINE * 12 * len(lines_of(note.text)) + 6
    return taken


def break_at_brackets(figure: go.Figure) -> None:
    """Break notes below a panel's ticks, which are closer together in a column."""
    for note in figure.layout.annotations:
        if str(note.yref).endswith(" domain") and (note.y or 0) < 0:
            note.update(text=(note.text or "").replace(" (", "<br>("), font_size=12, yshift=-22)


def numbers_to_rows(figure: go.Figure, plot: float, margin: dict[str, Any]) -> float:
    """Move numbers from the right of a forest plot under the names of its rows; returns the height of the plot."""
    notes = {note.y: note for note in figure.layout.annotations if at_the_right(note)}
    axis = figure.layout.yaxis
    if not notes or not axis.tickvals or not set(notes) <= set(axis.tickvals):
        return plot
    labels = [
        f"{label}<br>{notes[at].text}" if at in notes else label
        for at, label in zip(axis.tickvals, axis.ticktext, strict=True)
    ]
    figure.layout.annotations = [note for note in figure.layout.annotations if not at_the_right(note)]
    figure.update_yaxes(ticktext=labels, tickfont_size=12)
    margin["r"] = 14
    return max(plot, 38.0 * len(labels))


def at_the_right(note: Any) -> bool:
    """Whether a note has the numbers of a row, at the right of the plot."""
    return note.xref == "paper" and note.x == 1.0 and note.xanchor == "left" and str(note.yref).startswith("y")


def squeeze(figure: go.Figure, blocks: list[Block], width: float) -> None:
    """Make room for columns that share their rows and stay side by side: break headings, and draw few ticks."""
    labels = max(text_width(text, 12) for text in figure.layout[blocks[0].y_axes[0]].ticktext)
    each = (width - labels - 40) / len(blocks) - 10
    for note in figure.layout.annotations:
        if note.yref == "paper" and (note.y or 0) >= 0.99:
            note.update(text=wrapped(note.text, each, 12), font_size=12)
    for index, axis in enumerate(figure.select_xaxes()):
        low, high = axis.domain
        # A number at the end of one axis must not run into the first one of the next.
        axis.domain = (low + (0.03 if index else 0.0), high - 0.02)
    figure.update_xaxes(nticks=3, tickfont_size=12, title_font_size=12)
    figure.update_yaxes(tickfont_size=12)
    for axis in figure.select_xaxes():
        axis.title.text = wrapped(axis.title.text or "", each, 12)


def small_cells(figure: go.Figure, width: float) -> None:
    """Shorten, round and shrink the numbers in the cells of a matrix to fit; with them no colour bar is needed."""
    maps = list(figure.select_traces(selector={"type": "heatmap"}))
    texts = [trace for trace in figure.select_traces(selector={"type": "scatter"}) if trace.mode == "text"]
    if not maps or not texts:
        return
    labels = max((text_width(text, 13) for text in figure.layout.yaxis.ticktext or ("",)), default=0.0)
    cell = (width - labels - 40) / max(len(maps[0].x), 1)
    maps[0].showscale = False
    for trace in texts:
        if any("<br>" in text for text in trace.text):
            continue
        short = [text.replace("0.", ".", 1) for text in trace.text]
        largest = trace.textfont.size or 13.0
        if _fitting(short, cell) < _READABLE:
            short, largest = [_DECIMALS.sub(_one_decimal, text) for text in trace.text], 13.0
        trace.update(text=short, textfont_size=max(min(largest, _fitting(short, cell)), 9.0))


def _fitting(texts: list[str], cell: float) -> float:
    """The font size in which the longest of some texts fills a cell."""
    return cell / (max(map(len, texts), default=1) * _LETTER)


def _one_decimal(number: re.Match[str]) -> str:
    rounded = f"{float(number[0].replace(_MINUS, '-')):.1f}"
    rounded = "0" if float(rounded) == 0 else rounded.removesuffix(".0").replace("0.", ".", 1)
    return rounded.replace("-", _MINUS)
