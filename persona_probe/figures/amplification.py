"""How far narrow training moved the projection on the direction, layer by layer, against its nulls."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import band, layer_axis, mark_layer, new_figure
from persona_probe.figures.direction_card import marks
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES, model_style
from persona_probe.figures.text import NOTHING, count_range, escape_markup
from persona_probe.statistics.replication import FAILS, RELIABILITY, UNCHECKED, reliability

COLUMNS = (
    *("layer", "model", "shift", "shift_sd", "low_sd", "high_sd", "random_sd", "specificity", "replication"),
    *(*RELIABILITY, "chosen"),
)
WHAT = "amplification"
ONE = "direction"
"""The name in tables of a direction that has no name of its rows."""
NULLS = {
    "isotropic_sd": ("97.5 % of isotropic directions", replace(SERIES_STYLES[4], dash="dot")),
    "shuffled_sd": ("97.5 % of directions from shuffled labels", replace(SERIES_STYLES[2], dash="1.5px,6px")),
    "other_traits_sd": ("other traits' directions, the most", replace(SERIES_STYLES[3], dash="dashdot")),
}
"""Further nulls that a table may contain, each drawn as a thin line at both signs of its shift."""


def amplification(table: pd.DataFrame) -> go.Figure:
    """Draw the shift of the projection (in SD) of *after* and *control* by layer.

    Layers at which the direction does not replicate have open symbols: a shift along it shows nothing there. The band
    around each line is its 95 % interval; 97.5 % of random directions (with the activations' covariance) stay within
    the grey band. Nulls from isotropic directions, shuffled labels and other traits are drawn as thin broken
    lines where the table contains them.

    Args:
        table: one row per layer and model (the study's ``amplification`` table); of several directions, the first.

    Raises:
        ValueError: if a column is missing or empty.
    """
    name = table["direction"].iloc[0] if "direction" in table and len(table) else ONE
    figure = new_figure(f"Amplification of {called(name)}")
    draw_amplification(figure, table)
    return keys_below(figure.update_layout(height=470), note=note_of(table))


def draw_amplification(
    figure: go.Figure, table: pd.DataFrame | None, *, row: int = 1, col: int = 1, legend: str = "legend"
) -> None:
    """Draw `amplification` into one cell of a figure, its keys into one of the figure's legends."""
    rows = measured(require(table, COLUMNS, what=WHAT), "shift_sd", what=WHAT)
    if "direction" in rows:
        rows = rows[rows["direction"] == rows["direction"].iloc[0]]
    draw_shifts(figure, rows, along="layer", row=row, col=col, legend=legend)
    figure.update_xaxes(**layer_axis(rows["layer"]), row=row, col=col)
    chosen = rows.loc[rows["chosen"].eq(True), "layer"]
    if len(chosen):
        mark_layer(figure, int(chosen.iloc[0]), rows["layer"], row=row, col=col)


def draw_shifts(
    figure: go.Figure, rows: pd.DataFrame, *, along: str, row: int = 1, col: int = 1, legend: str = "legend"
) -> None:
    """Draw the shifts of one direction, and their nulls, against the column ``along``: ``layer`` or ``step``."""
    random = MODEL_STYLES["random"]
    null = rows.groupby(along)["random_sd"].max().dropna()
    if len(null):
        places, edge = null.index.tolist(), null.tolist()
        grey = band(
            places,
            [-value for value in edge],
            edge,
            colour=random.faded(0.32),
            name="97.5 % of random directions",
            legend=legend,
        )
        figure.add_trace(grey, row=row, col=col)
    for column, (name, style) in NULLS.items():
        if (line := _null_line(rows, column, along)) is not None:
            line.update(name=name, legend=legend, line={"color": style.colour, "dash": style.dash, "width": 1.5})
            figure.add_trace(line, row=row, col=col)
    for model in ("control", "after"):
        of_model = rows[rows["model"] == model].sort_values(along)
        if of_model.empty:
            continue
        bounded = of_model.dropna(subset=["low_sd", "high_sd"])
        interval = band(
            bounded[along].tolist(),
            bounded["low_sd"].tolist(),
            bounded["high_sd"].tolist(),
            colour=model_style(model).faded(0.2),
            showlegend=False,
        )
        figure.add_trace(interval, row=row, col=col)
        figure.add_trace(_line(of_model, model, legend, along), row=row, col=col)
    if rows["replication"].eq(FAILS).any():
        figure.add_trace(_key_of_open_symbols(legend), row=row, col=col)
    figure.update_yaxes(title_text="shift of the projection (SD)", range=_range(rows), row=row, col=col)


def called(name: object) -> str:
    """A direction's name in a title, escaped."""
    return "the direction" if name == ONE else escape_markup(name)


def note_of(table: pd.DataFrame) -> str:
    """The note of the figure: n, what the intervals are over, and what one SD is."""
    counted = ("n", "n_questions", "n_runs")
    n, questions, runs = (count_range(table[name]) if name in table else None for name in counted)
    over = f"{questions} questions" if questions else "questions"
    over += f" and {runs} runs" if runs not in (None, NOTHING, "1") else ""
    many = f"; n = {n} texts" if n else ""
    return (
        f"{_trust(table)} Bands: 95 % intervals over {over}{many}. One SD is over the before model's own answers along "
        "the direction; its own error is in the bands."
    )


def _trust(table: pd.DataFrame) -> str:
    """Whether the direction replicates, and how reliable it is at the chosen layer."""
    if "direction" in table and len(table):
        table = table[table["direction"] == table["direction"].iloc[0]]
    after = table[table["model"] == "after"]
    if after["replication"].eq(UNCHECKED).all():
        return "Replication of the direction was not checked."
    if after["replication"].eq(FAILS).all():
        return "No layer at which this direction replicates, so that no shift along it shows anything."
    places = after.loc[after["replication"] != FAILS, "layer"].nunique()
    chosen = after[after["chosen"].eq(True)] if "chosen" in after else after.iloc[:0]
    at = f"; at layer {chosen.iloc[0]['layer']}: {reliability(chosen.iloc[0].to_dict())}" if len(chosen) else ""
    return f"The direction replicates at {places} of {after['layer'].nunique()} layers{at}."


def _range(rows: pd.DataFrame) -> list[float]:
    """The range of everything that is drawn, with room above for the label of the chosen layer."""
    nulls = [rows[column].astype(float) for column in ("random_sd", *NULLS) if column in rows]
    drawn = pd.concat([rows["shift_sd"], rows["low_sd"], rows["high_sd"], *nulls, *(-null for null in nulls)])
    low, high = min(0.0, float(drawn.min())), max(0.0, float(drawn.max()))
    height = max(high - low, 1e-9)
    return [low - 0.06 * height, high + 0.16 * height]


def _null_line(rows: pd.DataFrame, column: str, along: str) -> go.Scatter | None:
    """The larger shift of the two models along a null, at both signs; None where it was not measured."""
    if column not in rows or rows[column].isna().all():
        return None
    null = rows.groupby(along)[column].max().dropna()
    places, edge = null.index.tolist(), null.tolist()
    return go.Scatter(
        x=[*places, None, *places],
        y=[*edge, None, *(-value for value in edge)],
        mode="lines",
        hoverinfo="skip",
    )


def _key_of_open_symbols(legend: str) -> go.Scatter:
    marker = {"symbol": "circle-open", "color": MODEL_STYLES["random"].colour, "size": 9, "line": {"width": 2}}
    name = "open: the direction does not replicate"
    return go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, legend=legend)


def _line(rows: pd.DataFrame, model: str, legend: str, along: str) -> go.Scatter:
    style = model_style(model)
    numbers = rows[["low_sd", "high_sd", "shift", "specificity", "random_sd", *RELIABILITY]].to_numpy(dtype=float)
    hover = (
        f"{along} %{{x}}<br>"
        "%{y:+.2f} SD [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
        "<br>%{customdata[2]:+.2f} residual units<br>random 97.5 %: %{customdata[4]:.2f} SD"
    )
    if rows["specificity"].notna().any():
        hover += "<br>specificity %{customdata[3]:.1f}"
    if rows["held_out_auroc"].notna().any():
        hover += (
            "<br>direction: split-half cosine %{customdata[5]:.2f}, held-out AUROC %{customdata[6]:.2f} "
            "[%{customdata[7]:.2f}, %{customdata[8]:.2f}]"
        )
    return go.Scatter(
        x=rows[along].tolist(),
        y=rows["shift_sd"].tolist(),
        mode="lines+markers",
        name=escape_markup(model),
        line={"color": style.colour, "dash": style.dash, "width": 2.4},
        marker={"symbol": marks(style.symbol, rows["replication"]), "size": 9},
        customdata=numbers.tolist(),
        hovertemplate=hover,
        legend=legend,
    )
