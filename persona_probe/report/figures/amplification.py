"""How far narrow training moved the projection on the direction, layer by layer, against its nulls."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.report.figures.axes import band, layer_axis, mark_layer, new_figure
from persona_probe.report.figures.checks import measured, require
from persona_probe.report.template import MODEL_STYLES, SERIES_STYLES, model_style
from persona_probe.report.text import escape_markup

COLUMNS = ("layer", "model", "shift", "shift_sd", "low_sd", "high_sd", "random_sd", "specificity", "chosen")
WHAT = "amplification"
NULLS = {
    "isotropic_sd": ("97.5 % of isotropic directions", SERIES_STYLES[4]),
    "shuffled_sd": ("97.5 % of directions from shuffled labels", SERIES_STYLES[2]),
    "other_traits_sd": ("other traits' directions, the most", SERIES_STYLES[3]),
}
"""Nulls that a table may hold beside random directions, each drawn as a thin line at both signs of its shift."""


def amplification(table: pd.DataFrame) -> go.Figure:
    """Draw the shift of the projection (in SD) of *after* and *control* by layer.

    The band around each line is its 95 % interval; the grey band is where 97.5 % of random directions (with the
    activations' covariance) stay. Nulls from isotropic directions, shuffled labels and other traits are drawn, dotted,
    where the table holds them.

    Args:
        table: one row a layer and model (the study's ``amplification`` table); of several directions, the first.

    Raises:
        ValueError: if a column is missing or empty.
    """
    figure = new_figure("Amplification of the direction")
    draw_amplification(figure, table)
    return figure


def draw_amplification(
    figure: go.Figure, table: pd.DataFrame | None, *, row: int = 1, col: int = 1, legend: str = "legend"
) -> None:
    """Draw `amplification` into one cell of a figure, its keys into one of the figure's legends."""
    rows = measured(require(table, COLUMNS, what=WHAT), "shift_sd", what=WHAT)
    if "direction" in rows:
        rows = rows[rows["direction"] == rows["direction"].iloc[0]]
    random = MODEL_STYLES["random"]
    null = rows.groupby("layer")["random_sd"].max().dropna()
    if len(null):
        layers, edge = null.index.tolist(), null.tolist()
        grey = band(
            layers,
            [-value for value in edge],
            edge,
            colour=random.faded(0.32),
            name="97.5 % of random directions",
            legend=legend,
        )
        figure.add_trace(grey, row=row, col=col)
    for column, (name, style) in NULLS.items():
        if (line := _null_line(rows, column)) is not None:
            line.update(name=name, legend=legend, line={"color": style.colour, "dash": "dot", "width": 1.4})
            figure.add_trace(line, row=row, col=col)
    for model in ("control", "after"):
        own = rows[rows["model"] == model].sort_values("layer")
        if own.empty:
            continue
        style = model_style(model)
        bounded = own.dropna(subset=["low_sd", "high_sd"])
        interval = band(
            bounded["layer"].tolist(),
            bounded["low_sd"].tolist(),
            bounded["high_sd"].tolist(),
            colour=style.faded(0.2),
            showlegend=False,
        )
        figure.add_trace(interval, row=row, col=col)
        figure.add_trace(_line(own, model, legend), row=row, col=col)
    figure.update_xaxes(**layer_axis(rows["layer"]), row=row, col=col)
    figure.update_yaxes(title_text="shift of the projection (SD)", range=_range(rows), row=row, col=col)
    chosen = rows.loc[rows["chosen"].eq(True), "layer"]
    if len(chosen):
        mark_layer(figure, int(chosen.iloc[0]), rows["layer"], row=row, col=col)


def _range(rows: pd.DataFrame) -> list[float]:
    """All that is drawn, with headroom for the label of the chosen layer."""
    nulls = [rows[column].astype(float) for column in ("random_sd", *NULLS) if column in rows]
    drawn = pd.concat([rows["shift_sd"], rows["low_sd"], rows["high_sd"], *nulls, *(-null for null in nulls)])
    low, high = min(0.0, float(drawn.min())), max(0.0, float(drawn.max()))
    height = max(high - low, 1e-9)
    return [low - 0.06 * height, high + 0.16 * height]


def _null_line(rows: pd.DataFrame, column: str) -> go.Scatter | None:
    """A null's largest shift of either model by layer, at both signs; None where it was not measured."""
    if column not in rows or rows[column].isna().all():
        return None
    null = rows.groupby("layer")[column].max().dropna()
    layers, edge = null.index.tolist(), null.tolist()
    return go.Scatter(
        x=[*layers, None, *layers],
        y=[*edge, None, *(-value for value in edge)],
        mode="lines",
        hoverinfo="skip",
    )


def _line(own: pd.DataFrame, model: str, legend: str) -> go.Scatter:
    style = model_style(model)
    numbers = own[["low_sd", "high_sd", "shift", "specificity", "random_sd"]].to_numpy(dtype=float)
    hover = (
        "layer %{x}<br>%{y:+.2f} SD [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
        "<br>%{customdata[2]:+.2f} residual units<br>random 97.5 %: %{customdata[4]:.2f} SD"
    )
    if own["specificity"].notna().any():
        hover += "<br>specificity %{customdata[3]:.1f}"
    return go.Scatter(
        x=own["layer"].tolist(),
        y=own["shift_sd"].tolist(),
        mode="lines+markers",
        name=escape_markup(model),
        line={"color": style.colour, "dash": style.dash, "width": 2.4},
        marker={"symbol": style.symbol, "size": 9},
        customdata=numbers.tolist(),
        hovertemplate=hover,
        legend=legend,
    )
