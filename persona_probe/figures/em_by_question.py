"""EM rate by question (or topic, or any other unit) and model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.em_rates import ordered_models, styles_of
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.template import Style
from persona_probe.figures.text import counted, escape_markup, percent_interval

COLUMNS = ("definition", "value", "low", "high", "n", "refusals", "failures")
LONGEST = 46
"""Number of characters of a question that the axis shows; hovering shows all of it."""
_GAP = 0.8
"""The gap between two questions, in rows."""
_TOP, _BOTTOM = 84, 64


def em_by_question(
    table: pd.DataFrame, *, definition: str = "betley", unit: str = "question", most: int = 24
) -> go.Figure:
    """Draw each model's EM rate on each question, those with the highest rates first, with 95 % intervals and n.

    Questions are sorted by the highest rate that a model has on them; the title says how many are left out.

    Args:
        table: one row per question, model and definition (`persona_probe.behaviour.answers.Answers.rates`);
            without a column ``model``, all rows are of one model.
        definition: which EM-rate definition to draw.
        unit: the column that is listed.
        most: how many questions to draw at most.

    Raises:
        ValueError: if a column is missing or empty, or the table has no row of this definition.
    """
    what = f"EM rates by {unit}"
    table = require(table, (unit, *COLUMNS), what=what)
    rows = table[table["definition"] == definition]
    if rows.empty:
        known = ", ".join(sorted(str(name) for name in table["definition"].unique()))
        raise MissingDataError(f"{what}: the column 'definition' has no {definition!r}; it holds {known}")
    rows = measured(rows if "model" in rows else rows.assign(model="answers"), "value", what=what)
    rows = rows.assign(value=rows["value"].astype(float), **{unit: rows[unit].astype(str)})
    peak = rows.groupby(unit, sort=False)["value"].max().sort_values(ascending=False, kind="stable")
    drawn = peak.index[:most].tolist()
    models = ordered_models(rows["model"])
    left_out = f"; the {len(drawn)} highest of {len(peak)}" if len(peak) > len(drawn) else ""
    figure = new_figure(f"EM rate by {escape_markup(unit)} ({escape_markup(definition)}{left_out})")
    middles = []
    position = 0.0
    places: dict[tuple[str, str], float] = {}
    for name in drawn:
        for model in models:
            places[name, model] = position
            position += 1
        middles.append(position - (len(models) + 1) / 2)
        position += _GAP
    numbers: list[dict[str, Any]] = []
    for model, style in zip(models, styles_of(models), strict=True):
        of_model = rows[(rows["model"] == model) & rows[unit].isin(drawn)]
        at = [places[name, model] for name in of_model[unit]]
        figure.add_trace(_marks(of_model, at, unit, model, style))
        numbers += _numbers(of_model, at)
    figure.update_yaxes(
        tickvals=middles,
        ticktext=[escape_markup(_short(name)) for name in drawn],
        range=[position - _GAP - 0.3, -0.7],
        showgrid=False,
        ticks="",
    )
    edges = [middle - (len(models) + _GAP) / 2 for middle in middles[1:]]
    figure.update_xaxes(**rate_axis("EM rate (share of answers)"))
    drawn_height = {1: 26, 2: 18}.get(len(models), 15) * position
    height = drawn_height + _TOP + _BOTTOM
    # Title and keys keep their distance in pixels, however tall the figure is.
    return figure.update_layout(
        shapes=[
            {"type": "line", "x0": 0, "x1": 1, "xref": "x domain", "y0": y, "y1": y, "line_width": 0.6, "opacity": 0.5}
            for y in edges
        ],
        annotations=[*figure.layout.annotations, *numbers],
        height=int(height),
        margin={"r": 190, "t": _TOP, "b": _BOTTOM},
        title_y=1 - 16 / height,
        legend_y=1 + 6 / drawn_height,
        showlegend=len(models) > 1,
        hovermode="closest",
    )


def _marks(rows: pd.DataFrame, places: Sequence[float], unit: str, model: str, style: Style) -> go.Scatter:
    hover = []
    for row in rows.to_dict("records"):
        numbers = f"{percent_interval(row['value'], row['low'], row['high'])}, n = {counted(row['n'])}"
        counts = f"{counted(row['refusals'])} refusals, {counted(row['failures'])} failures"
        hover.append(f"{escape_markup(row[unit])}<br>{escape_markup(model)}: {numbers}<br>{counts}")
    values, low, high = (rows[name].astype(float).tolist() for name in ("value", "low", "high"))
    return go.Scatter(
        x=values,
        y=list(places),
        mode="markers",
        name=escape_markup(model),
        marker={"color": style.colour, "symbol": style.symbol, "size": 9},
        error_x=whiskers(values, low, high, colour=style.colour, thickness=1.4, width=3),
        hovertext=hover,
        hoverinfo="text",
        cliponaxis=False,
    )


def _numbers(rows: pd.DataFrame, places: Sequence[float]) -> list[dict[str, Any]]:
    """Each row's numbers, right of the plot; all are set at once, as plotly checks the whole figure each time."""
    right = {"x": 1.0, "xref": "paper", "xanchor": "left", "xshift": 12, "yref": "y", "showarrow": False}
    return [
        {
            **right,
            "y": place,
            "text": f"{percent_interval(row['value'], row['low'], row['high'])}  n = {counted(row['n'])}",
            "font": {"size": 11},
            "align": "left",
        }
        for place, row in zip(places, rows.to_dict("records"), strict=True)
    ]


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 2]} …"
