"""Parts that several figures share: axes for layers and for rates, interval bands, the mark of the chosen layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from persona_probe.figures.template import NAME

LAYER_TITLE = "layer (output of block, counted from 0)"


def new_figure(title: str, **subplots: Any) -> go.Figure:
    """An empty figure in the house template; ``subplots`` go to `plotly.subplots.make_subplots`."""
    figure = make_subplots(**{"rows": 1, "cols": 1, **subplots})
    return figure.update_layout(template=NAME, title_text=title)


def layer_axis(layers: Iterable[float]) -> dict[str, Any]:
    """An axis whose ticks are whole layers; all layers if there are few."""
    ordered = sorted({int(layer) for layer in layers})
    few = len(ordered) <= 20
    return {
        "title_text": LAYER_TITLE,
        "tickmode": "array" if few else "auto",
        "tickvals": ordered if few else None,
        "tickformat": "d",
        "range": [ordered[0] - 0.25, ordered[-1] + 0.25] if few else None,
    }


def rate_axis(title: str, *, top: float = 1.0) -> dict[str, Any]:
    """An axis of shares, shown in per cent, from 0 to at least ``top``."""
    return {"title_text": title, "tickformat": ".0%", "range": [-0.03 * top, 1.05 * top]}


def band(x: Sequence[float], low: Sequence[float], high: Sequence[float], *, colour: str, **scatter: Any) -> go.Scatter:
    """A filled band between ``low`` and ``high``; hovering ignores it."""
    return go.Scatter(
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        fill="toself",
        fillcolor=colour,
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        **scatter,
    )


def whiskers(
    value: Sequence[float], low: Sequence[float], high: Sequence[float], *, colour: str, **error: Any
) -> dict[str, Any]:
    """Asymmetric error bars from interval ends; a missing end draws no whisker there."""
    up = [_gap(end, middle) for end, middle in zip(high, value, strict=True)]
    down = [_gap(middle, end) for end, middle in zip(low, value, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": up,
        "arrayminus": down,
        "color": colour,
        "thickness": 1.8,
        "width": 5,
        **error,
    }


def _gap(upper: float, lower: float) -> float:
    gap = upper - lower
    return max(gap, 0.0) if gap == gap else 0.0


def mark_layer(
    figure: go.Figure, layer: int, layers: Iterable[float], *, end: str = "top", row: int = 1, col: int = 1
) -> None:
    """Draw a line at the layer that was chosen, labelled at its top or bottom ``end`` on the side with more room."""
    ordered = sorted(set(layers))
    left = layer <= (ordered[0] + ordered[-1]) / 2
    figure.add_vline(
        x=layer,
        line_dash="dash",
        annotation_text=f"&nbsp;layer {layer}, chosen&nbsp;",
        annotation_position=f"{end} {'right' if left else 'left'}",
        row=row,
        col=col,
    )
