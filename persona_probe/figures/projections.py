"""The positions of before, after and the control along a direction, layer by layer."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.amplification import called
from persona_probe.figures.axes import band, layer_axis, mark_layer, new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.template import model_style
from persona_probe.figures.text import count_range

COLUMNS = ("layer", "model", "mean", "mean_sd", "low_sd", "high_sd", "n", "n_questions")
WHAT = "projections"
MODELS = ("before", "control", "after")


def projections(table: pd.DataFrame) -> go.Figure:
    """Draw each model's mean projection by layer, in SD, with 95 % intervals over questions.

    Args:
        table: one row per layer and model (`persona_probe.amplification.projections.Projections`); of several
            directions, the first; a column ``chosen`` marks the layer that was chosen.

    Raises:
        ValueError: if a column is missing or empty.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "mean_sd", what=WHAT)
    name = ""
    if "direction" in rows:
        first = rows["direction"].iloc[0]
        rows, name = rows[rows["direction"] == first], f" on {called(first)}"
    figure = new_figure(f"Projection{name} by layer")
    for model in MODELS:
        of_model = rows[rows["model"] == model].sort_values("layer")
        if of_model.empty:
            continue
        style = model_style(model)
        bounded = of_model.dropna(subset=["low_sd", "high_sd"])
        ends = (bounded[column].tolist() for column in ("layer", "low_sd", "high_sd"))
        figure.add_trace(band(*ends, colour=style.faded(0.2), showlegend=False))
        figure.add_trace(_line(of_model, model))
    figure.add_hline(y=0, line_dash="dot")
    figure.update_xaxes(**layer_axis(rows["layer"]))
    low, high = (float(rows[column].fillna(rows["mean_sd"]).agg(end)) for column, end in _ENDS)
    height = max(high, 0.0) - min(low, 0.0)
    figure.update_yaxes(
        title_text="mean projection (SD)", range=[min(low, 0.0) - 0.07 * height, max(high, 0.0) + 0.16 * height]
    )
    if "chosen" in rows and len(chosen := rows.loc[rows["chosen"].eq(True), "layer"]):
        mark_layer(figure, int(chosen.iloc[0]), rows["layer"])
    note = (
        f"Bands: 95 % over {count_range(rows['n_questions'])} questions, n = {count_range(rows['n'])} texts per model. "
        "0 is the mean, and 1 SD the spread, of the before model's own answers to development questions. "
        + ("Null: the control." if (rows["model"] == "control").any() else "There was no control.")
    )
    return keys_below(figure, note=note)


_ENDS = (("low_sd", "min"), ("high_sd", "max"))


def _line(rows: pd.DataFrame, model: str) -> go.Scatter:
    style = model_style(model)
    return go.Scatter(
        x=rows["layer"].tolist(),
        y=rows["mean_sd"].tolist(),
        mode="lines+markers",
        name=model,
        line={"color": style.colour, "dash": style.dash, "width": 2.4},
        marker={"symbol": style.symbol, "size": 9},
        customdata=rows[["low_sd", "high_sd", "mean", "n"]].to_numpy(dtype=float).tolist(),
        hovertemplate="layer %{x}<br>%{y:+.2f} SD [%{customdata[0]:.2f}, %{customdata[1]:.2f}], n = %{customdata[3]:,d}"
        "<br>%{customdata[2]:+.2f} residual-stream units",
    )
