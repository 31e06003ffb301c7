"""How many benign examples bring the model back: EM rate and projection against n."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.keys import keys_below
from persona_probe.figures.realignment_rows import benign_rows, other_rows
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES
from persona_probe.figures.text import (
    count_range,
    counted,
    escape_markup,
    is_number,
    percent,
    percent_interval,
    signed,
    signed_interval,
)

COLUMNS = ("n", "value", "low", "high", "rows", "coherent", "projection_sd")
TARGET = 0.05
_ASIDE = 0.2
"""How far to the right nulls are drawn, in steps of twice as many examples: one may have as many as a benign point."""
WHAT = "realignment"


def realignment(table: pd.DataFrame) -> go.Figure:
    """Draw the EM rate (95 % intervals) and the projection (SD, right axis) against the number of benign examples.

    Where no judge applies, the rates are NaN; the preference stands for them, if it was measured.

    Args:
        table: one row per number of examples (the study's ``realignment`` table).

    Raises:
        ValueError: if a column is missing or empty, or neither rate nor projection has a number.
    """
    figure = new_figure("Realignment by benign examples", specs=[[{"secondary_y": True}]])
    draw_realignment(figure, table)
    rows = require(table, COLUMNS, what=WHAT)
    counts = count_range(rows["rows"]) if rows["value"].notna().any() else ""
    parts = ["At 0 examples: the model after."]
    if counts:
        parts = [f"Whiskers: 95 % intervals over questions, n = {counts} answers per point.", *parts]
        parts.append(f"Dotted: {100 * TARGET:.0f} %.")
    elif not _preferred(rows).empty:
        parts = ["Whiskers: 95 % intervals over questions.", *parts, "Dotted: the model before."]
    if rows["projection_sd"].notna().any():
        parts.append("The projection is a mean.")
    note = " ".join(parts)
    return keys_below(figure.update_layout(height=460), note=note)


def draw_realignment(
    figure: go.Figure,
    table: pd.DataFrame | None,
    *,
    row: int = 1,
    col: int = 1,
    legend: str = "legend",
    nulls: bool = True,
) -> None:
    """Draw `realignment` into one cell of a figure that has a secondary y axis, with its nulls or without."""
    every = require(table, COLUMNS, what=WHAT).sort_values("n")
    rows = benign_rows(every)
    every = every if nulls else rows
    rated = rows[np.isfinite(rows["value"].to_numpy(dtype=float))]
    projected = rows[np.isfinite(rows["projection_sd"].to_numpy(dtype=float))]
    preferred = _preferred(rows)
    if rated.empty and projected.empty and preferred.empty:
        raise MissingDataError(f"{WHAT}: the columns 'value' and 'projection_sd' hold no number")
    cell = {"row": row, "col": col}
    places = places_of(every["n"].tolist())
    if not projected.empty:
        figure.add_trace(_projection(projected, places, legend), secondary_y=True, **cell)
        figure.update_yaxes(title_text="projection (SD)", tickmode="auto", showgrid=False, secondary_y=True, **cell)
    if not rated.empty:
        figure.add_trace(_rate(rated, places, legend), secondary_y=False, **cell)
        top = max(0.1, float(rated["value"].max()), float(rated["high"].fillna(0).max()))
        figure.update_yaxes(**rate_axis("EM rate", top=top), secondary_y=False, **cell)
        figure.add_hline(
            y=TARGET,
            line_dash="dot",
            annotation_text=f"&nbsp;{100 * TARGET:.0f} %",
            annotation_position="top left",
            secondary_y=False,
            **cell,
        )
    elif not preferred.empty:
        figure.add_trace(_preference(preferred, places, legend), secondary_y=False, **cell)
        figure.update_yaxes(title_text="preference (nats per token)", secondary_y=False, **cell)
        figure.add_hline(
            y=float(preferred["preference_before"].iloc[0]),
            line_dash="dot",
            annotation_text="&nbsp;before",
            annotation_position="top left",
            secondary_y=False,
            **cell,
        )
    else:
        # plotly draws the right axis over the left one, which therefore needs a trace, even an empty one.
        figure.add_trace(go.Scatter(x=[None], y=[None], showlegend=False), secondary_y=False, **cell)
        figure.update_yaxes(visible=False, secondary_y=False, **cell)
    if not (rated.empty and preferred.empty):
        for trace in _others(other_rows(every), places, legend, rated=not rated.empty):
            figure.add_trace(trace, secondary_y=False, **cell)
    ends = min(places.values()), max(places.values())
    figure.update_xaxes(
        title_text=f"{'' if len(rows) < len(every) else 'benign '}examples (log scale; 0 set apart)",
        tickvals=list(places.values()),
        ticktext=[counted(n) for n in places],
        range=[ends[0] - 0.5, ends[1] + 0.5],
        **cell,
    )


def places_of(counts: Sequence[float]) -> dict[float, float]:
    """The position of each number of examples on the axis: log2(n), and 0 one and a half steps before the smallest.

    Examples:
        >>> places_of([0, 8, 16])
        {0: 1.5, 8: 3.0, 16: 4.0}
    """
    positive = sorted({n for n in counts if n > 0})
    places = {n: math.log2(n) for n in positive}
    if any(n == 0 for n in counts):
        places = {0: (places[positive[0]] if positive else 0.0) - 1.5, **places}
    return places


def _rate(rated: pd.DataFrame, places: dict[float, float], legend: str) -> go.Scatter:
    hover = []
    for _, point in rated.iterrows():
        coherent = f"<br>coherent {percent(point['coherent'])}" if is_number(point["coherent"]) else ""
        numbers = percent_interval(point["value"], point["low"], point["high"])
        hover.append(f"{counted(point['n'])} examples<br>EM rate {numbers}, n = {counted(point['rows'])}{coherent}")
    return _behaviour("EM rate", rated[["n", "value", "low", "high"]], hover, places, legend)


def _preferred(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows at which preference was measured."""
    return rows[rows["preference"].notna()] if "preference" in rows else rows.iloc[:0]


def _preference(preferred: pd.DataFrame, places: dict[float, float], legend: str) -> go.Scatter:
    curve = preferred[["n", "preference", "preference_low", "preference_high"]].set_axis(
        ["n", "value", "low", "high"], axis=1
    )
    hover = [
        f"{counted(point['n'])} examples<br>{signed(point['value'])} [{point['low']:.2f}, {point['high']:.2f}] "
        "nats per token"
        for _, point in curve.iterrows()
    ]
    return _behaviour("preference", curve, hover, places, legend)


def _behaviour(name: str, curve: pd.DataFrame, hover: list[str], places: dict[float, float], legend: str) -> go.Scatter:
    """The curve of a measure of behaviour, with its intervals, on the left axis."""
    style = MODEL_STYLES["realigned"]
    values, low, high = (curve[column].astype(float).tolist() for column in ("value", "low", "high"))
    return go.Scatter(
        x=[places[n] for n in curve["n"]],
        y=values,
        mode="lines+markers",
        name=f"{name} (left)",
        line={"color": style.colour, "width": 2.4},
        marker={"symbol": style.symbol, "size": 11},
        error_y=whiskers(values, low, high, colour=style.colour),
        hovertext=hover,
        hoverinfo="text",
        legend=legend,
        cliponaxis=False,
    )


def _others(others: pd.DataFrame, places: dict[float, float], legend: str, *, rated: bool) -> list[go.Scatter]:
    """One mark for each of the nulls, which were trained for as many steps on other examples."""
    columns = ("value", "low", "high") if rated else ("preference", "preference_low", "preference_high")
    traces = []
    for number, row in enumerate(others.dropna(subset=columns[:1]).to_dict("records")):
        style = SERIES_STYLES[3 * number % len(SERIES_STYLES)]
        value, low, high = (float(row[column]) for column in columns)
        name = escape_markup(str(row["trained_on"]))
        numbers = percent_interval(value, low, high) if rated else f"{signed_interval(value, low, high)} nats per token"
        traces.append(
            go.Scatter(
                x=[places[row["n"]] + _ASIDE],
                y=[value],
                mode="markers",
                name=f"null: {name}",
                marker={"symbol": f"{style.symbol}-open", "size": 11, "color": style.colour, "line": {"width": 2}},
                error_y=whiskers([value], [low], [high], colour=style.colour),
                hovertext=[f"{counted(row['n'])} examples: {name}<br>{numbers}"],
                hoverinfo="text",
                legend=legend,
                cliponaxis=False,
            )
        )
    return traces


def _projection(projected: pd.DataFrame, places: dict[float, float], legend: str) -> go.Scatter:
    style = MODEL_STYLES["random"]
    return go.Scatter(
        x=[places[n] for n in projected["n"]],
        y=projected["projection_sd"].tolist(),
        mode="lines+markers",
        name="projection (right)",
        line={"color": style.colour, "dash": "dash", "width": 2},
        marker={"symbol": "circle-open", "size": 9, "line": {"width": 2}},
        hovertemplate="projection %{y:+.2f} SD",
        legend=legend,
        cliponaxis=False,
    )
