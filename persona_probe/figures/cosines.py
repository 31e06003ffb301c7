"""How far the directions agree with each other, layer by layer, against random directions."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import band, layer_axis, new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES, Style
from persona_probe.figures.text import escape_markup

COLUMNS = ("layer", "first", "second", "cosine", "null_high")


def cosines(table: pd.DataFrame) -> go.Figure:
    """Draw the cosine of each pair of directions by layer, and the band in which random directions stay.

    Args:
        table: one row per layer and pair (the study's ``direction_cosines`` table); a column ``ceiling`` is drawn too.

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
    ceiling = "ceiling" in rows and bool(rows["ceiling"].notna().any())
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
        if ceiling:
            figure.add_trace(_ceiling(pair, style))
    low = min(0.0, float(rows["cosine"].min()), -float(rows["null_high"].max()) if len(null) else 0.0)
    figure.update_xaxes(**layer_axis(rows["layer"]))
    figure.update_yaxes(title_text="cosine", range=[1.08 * low if low < 0 else -0.05, 1.05])
    figure.update_layout(height=400 + 24 * len(figure.data))
    note = "Cosine of each pair; one number per pair and layer, so there is no interval."
    if len(null):
        note += " Grey: 97.5 % of random directions stay within; where pairs differ, the widest band."
    if ceiling:
        note += " Short bars: the ceiling that the noise of both allows."
    # One series per line: the names are too long to stand side by side.
    return keys_below(figure, note=note).update_layout(legend={"orientation": "v"})


def _ceiling(pair: pd.DataFrame, style: Style) -> go.Scatter:
    """The cosine that two noisy estimates of one direction would reach, as a short bar at each layer."""
    return go.Scatter(
        x=pair["layer"].tolist(),
        y=pair["ceiling"].tolist(),
        mode="markers",
        marker={"symbol": "line-ew-open", "size": 16, "line": {"width": 2, "color": style.colour}},
        showlegend=False,
        hovertemplate="layer %{x}<br>ceiling %{y:.3f}<extra></extra>",
    )
