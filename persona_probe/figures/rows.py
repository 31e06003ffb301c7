"""Estimates in rows: a label, a mark and an interval each, in one panel or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from persona_probe.figures.axes import whiskers
from persona_probe.figures.keys import label
from persona_probe.figures.template import Style

ROW = 30
"""Height of a row in pixels."""


@dataclass(frozen=True)
class Mark:
    """One estimate.

    Attributes:
        place: which row, from 0 at the top; fractions are between rows.
        value: its position on the x axis.
        low: the low end of its interval; NaN draws none.
        high: the high end of its interval.
        hover: the text that appears over it, escaped.
        filled: whether the mark is filled.
    """

    place: float
    value: float
    low: float
    high: float
    hover: str
    filled: bool = True


def add_marks(
    figure: go.Figure, marks: Sequence[Mark], name: str, style: Style, *, col: int = 1, **trace: object
) -> None:
    """Draw the marks of one series.

    Args:
        figure: a figure with a panel ``col``.
        marks: those of the series; if there are none, nothing is drawn.
        name: the series' name in the key, escaped.
        style: the series' style.
        col: which panel; only the traces of the first panel are in the key.
        **trace: further settings of the trace.
    """
    if not marks:
        return
    values = [mark.value for mark in marks]
    figure.add_trace(
        go.Scatter(
            x=values,
            y=[mark.place for mark in marks],
            mode="markers",
            name=name,
            legendgroup=name,
            marker={
                "color": style.colour,
                "symbol": [style.symbol if mark.filled else f"{style.symbol}-open" for mark in marks],
                "size": 10,
                "line": {"width": 2, "color": style.colour},
            },
            error_x=whiskers(values, [mark.low for mark in marks], [mark.high for mark in marks], colour=style.colour),
            hovertext=[mark.hover for mark in marks],
            hoverinfo="text",
            cliponaxis=False,
            **{"showlegend": col == 1, **trace},
        ),
        row=1,
        col=col,
    )


def label_rows(figure: go.Figure, names: Sequence[object]) -> None:
    """Write the rows' names at the left, and set the figure's height."""
    figure.update_yaxes(range=[len(names) - 0.4, -0.6], showgrid=False, ticks="")
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=[label(name) for name in names], row=1, col=1)
    figure.update_layout(height=190 + ROW * len(names), hovermode="closest")
