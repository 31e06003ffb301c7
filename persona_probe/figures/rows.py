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
        place: which row, from 0 at the top; fractions stand between rows.
        value: where it stands.
        low: its interval's low end; NaN draws none.
        high: the high end.
        hover: what hovering says, escaped.
        filled: whether it is drawn full.
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
        figure: with a panel ``col``.
        marks: those of the series; nothing is drawn of none.
        name: in the key, escaped.
        style: of the series.
        col: which panel; only the first one's traces are in the key.
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
    """Name the rows at the left, and give them their height."""
    figure.update_yaxes(range=[len(names) - 0.4, -0.6], showgrid=False, ticks="")
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=[label(name) for name in names], row=1, col=1)
    figure.update_layout(height=190 + ROW * len(names), hovermode="closest")
