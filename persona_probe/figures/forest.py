"""A forest plot of shares: one row per estimate, its interval drawn, its numbers written next to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.template import model_style
from persona_probe.figures.text import counted, escape_markup, percent_interval


@dataclass(frozen=True)
class ForestRow:
    """One row: the model it belongs to, its label, the share with its interval, and what hovering adds."""

    model: str
    label: str
    value: float
    low: float
    high: float
    n: float
    filled: bool = True
    detail: str = ""


def forest(groups: Sequence[Sequence[ForestRow]], *, title: str, axis_title: str) -> go.Figure:
    """Draw ``groups`` of estimates from top to bottom, with a gap between groups."""
    figure = new_figure(title)
    ticks: list[float] = []
    labels: list[str] = []
    position = 0.0
    for group in groups:
        for row in group:
            ticks.append(position)
            labels.append(escape_markup(row.label))
            _draw(figure, row, position)
            position += 1
        position += 0.6
    figure.update_yaxes(tickvals=ticks, ticktext=labels, range=[ticks[-1] + 0.7, -0.7], showgrid=False, ticks="")
    figure.update_xaxes(**rate_axis(axis_title))
    return figure.update_layout(
        height=int(140 + 30 * position), margin={"r": 190, "t": 60}, showlegend=False, hovermode="closest"
    )


def _draw(figure: go.Figure, row: ForestRow, position: float) -> None:
    style = model_style(row.model)
    numbers = percent_interval(row.value, row.low, row.high)
    n = f"n = {counted(row.n)}"
    figure.add_trace(
        go.Scatter(
            x=[row.value],
            y=[position],
            mode="markers",
            name=escape_markup(row.label),
            marker={
                "color": style.colour,
                "symbol": style.symbol if row.filled else f"{style.symbol}-open",
                "size": 11,
                "line": {"width": 2, "color": style.colour},
            },
            error_x=whiskers([row.value], [row.low], [row.high], colour=style.colour),
            hovertext=[f"{escape_markup(row.label)}<br>{numbers}, {n}{row.detail}"],
            hoverinfo="text",
            cliponaxis=False,
        )
    )
    figure.add_annotation(
        x=1.0, xref="paper", xanchor="left", xshift=12, y=position, yref="y", text=f"{numbers}  {n}", align="left"
    )
