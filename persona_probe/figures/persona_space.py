"""The persona space at one layer: directions as points, and the positions of the models' means among them."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, whiskers
from persona_probe.figures.keys import keys_below, label
from persona_probe.figures.required import measured, require
from persona_probe.figures.template import SERIES_STYLES, model_style
from persona_probe.figures.text import count_range, counted, escape_markup, is_number, percent

COLUMNS = (
    "kind", "name", "layer", "x", "x_low", "x_high", "y", "y_low", "y_high",
    "x_explained", "y_explained", "in_plane", "in_plane_random", "n", "n_questions",
)  # fmt: skip
WHAT = "persona space"


def persona_space(table: pd.DataFrame) -> go.Figure:
    """Draw directions and models in the plane of the directions' first two components.

    The origin is the before model's mean over the reference. Models are drawn with 95 % intervals over questions.

    Args:
        table: one row per direction and model (`persona_probe.amplification.persona_space.PersonaSpace`).

    Raises:
        ValueError: if a column is missing or empty.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "x", what=WHAT)
    first = rows.iloc[0]
    figure = new_figure(f"Persona space, layer {int(first['layer'])}")
    figure.add_hline(y=0, line_dash="dot", line_width=1)
    figure.add_vline(x=0, line_dash="dot", line_width=1)
    directions, models = rows[rows["kind"] == "direction"], rows[rows["kind"] == "model"]
    if len(directions):
        figure.add_trace(_directions(directions))
    for _, row in models.iterrows():
        figure.add_trace(_model(row))
    for axis, end in (("x", "x_explained"), ("y", "y_explained")):
        number = {"x": 1, "y": 2}[axis]
        title = f"component {number}, residual units ({percent(float(first[end]))})"
        figure.update_layout({f"{axis}axis_title_text": title})
    # Equal scales, so that distances are distances; the axes show more rather than the plot less.
    figure.update_xaxes(scaleanchor="y", constrain="range")
    figure.update_layout(height=620)
    return keys_below(figure, note=_note(models), r=120)


def _note(models: pd.DataFrame) -> str:
    note = (
        "Components (not centred) of the directions, with their shares of the squared length; the origin is before's "
        "mean over the reference."
    )
    if models.empty:
        return note
    note += (
        f" Crosses: 95 % over {count_range(models['n_questions'])} questions, n = {count_range(models['n'])} texts; "
        "directions have no interval."
    )
    for _, row in models.iterrows():
        if is_number(row["in_plane"]) and row["name"] != "before":
            note += (
                f" The plane contains {percent(row['in_plane'])} of {escape_markup(row['name'])}'s shift from before"
            )
            null = row["in_plane_random"]
            note += f" (97.5 % of random planes: below {percent(null)})." if is_number(null) else "."
    return note


def _directions(rows: pd.DataFrame) -> go.Scatter:
    style = SERIES_STYLES[2]
    return go.Scatter(
        x=rows["x"].tolist(),
        y=rows["y"].tolist(),
        mode="markers+text",
        name="directions (mean differences)",
        text=[f"&nbsp;{label(name)}" for name in rows["name"]],
        textposition="middle right",
        textfont={"size": 12.5},
        marker={"symbol": style.symbol, "size": 9, "color": style.colour},
        hovertext=[
            f"{escape_markup(n)}<br>({x:.2f}, {y:.2f})"
            for n, x, y in zip(rows["name"], rows["x"], rows["y"], strict=True)
        ],
        hoverinfo="text",
        cliponaxis=False,
    )


def _model(row: pd.Series) -> go.Scatter:
    style = model_style(str(row["name"]))
    ends = {axis: [[float(row[f"{axis}{end}"])] for end in ("", "_low", "_high")] for axis in "xy"}
    return go.Scatter(
        x=ends["x"][0],
        y=ends["y"][0],
        mode="markers",
        name=escape_markup(row["name"]),
        # The control is usually at the same place as before: as an open mark it hides nothing.
        marker={"symbol": style.symbol, "size": 13, "color": style.colour}
        if row["name"] != "control"
        else {"symbol": f"{style.symbol}-open", "size": 17, "color": style.colour, "line": {"width": 2.4}},
        error_x=whiskers(*ends["x"], colour=style.colour),
        error_y=whiskers(*ends["y"], colour=style.colour),
        hovertext=[
            f"{escape_markup(row['name'])}, n = {counted(row['n'])}<br>"
            f"component 1: {row['x']:.2f} [{row['x_low']:.2f}, {row['x_high']:.2f}]<br>"
            f"component 2: {row['y']:.2f} [{row['y_low']:.2f}, {row['y_high']:.2f}]"
        ],
        hoverinfo="text",
        cliponaxis=False,
    )
