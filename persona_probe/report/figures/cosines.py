"""How far the directions agree with each other, layer by layer, against random directions."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.report.figures.axes import band, layer_axis, new_figure
from persona_probe.report.figures.checks import measured, require
from persona_probe.report.template import MODEL_STYLES, SERIES_STYLES
from persona_probe.report.text import escape_markup

COLUMNS = ("layer", "first", "second", "cosine", "null_high")


def cosines(table: pd.DataFrame) -> go.Figure:
    """Draw the cosine of each pair of directions by layer, and the band that random directions stay in.

    Args:
        table: one row a layer and pair (the study's ``direction_cosines`` table).

    Raises:
        ValueError: if a column is missing or empty.
    """
    what = "direction cosines"
    rows = measured(require(table, COLUMNS, what=what), "cosine", what=what)
    figure = new_figure("Agreement between directions")
    null = rows.groupby("layer")["null_high"].max().dropna()
    if len(null):
        layers, edge = null.index.tolist(), null.tolist()
        figure.add_trace(
            band(
                layers,
                [-value for value in edge],
                edge,
                colour=MODEL_STYLES["random"].faded(0.28),
                name="random directions, 97.5 % of |cosine|",
            )
        )
    for position, ((first, second), pair) in enumerate(rows.groupby(["first", "second"], sort=False)):
        style = SERIES_STYLES[position % len(SERIES_STYLES)]
        pair = pair.sort_values("layer")
        name = f"{escape_markup(first)} × {escape_markup(second)}"
        figure.add_trace(
            go.Scatter(
                x=pair["layer"].tolist(),
                y=pair["cosine"].tolist(),
                mode="lines+markers",
                name=name,
                line={"color": style.colour, "dash": style.dash, "width": 2.2},
                marker={"symbol": style.symbol, "size": 9},
                customdata=pair["null_high"].tolist(),
                hovertemplate=f"layer %{{x}}<br>cosine %{{y:.3f}}<br>random |cosine| up to %{{customdata:.3f}}"
                f"<extra>{name.replace('%{', '% {')}</extra>",
            )
        )
    low = min(0.0, float(rows["cosine"].min()), -float(rows["null_high"].max()) if len(null) else 0.0)
    figure.update_xaxes(**layer_axis(rows["layer"]))
    figure.update_yaxes(title_text="cosine", range=[1.08 * low if low < 0 else -0.05, 1.05])
    # One series a line below the plot: the names are too long to stand side by side.
    entries = len(figure.data)
    return figure.update_layout(
        height=390 + 24 * entries,
        margin={"t": 56, "b": 80 + 24 * entries},
        legend={"orientation": "v", "y": -0.24, "yanchor": "top"},
    )
