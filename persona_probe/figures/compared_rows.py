"""Estimates of several runs, one row each, grouped by run, with the range of each estimate's null behind it."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.template import MODEL_STYLES, model_style
from persona_probe.figures.text import counted, escape_markup, is_number, percent_interval, signed

COLUMNS = ("run", "label", "model", "value", "low", "high", "n", "null_low", "null_high")
_ROW = 27
_GAP = 0.5


def compared_rows(
    table: pd.DataFrame, *, title: str, axis_title: str, null: str = "null", shares: bool = True
) -> go.Figure:
    """Draw one row per estimate: its value, its 95 % interval, its n, and behind it the range of its null.

    Args:
        table: one row per estimate, with the columns ``run``, ``label``, ``model`` (whose style it has), ``value``,
            ``low``, ``high``, ``n``, ``null_low`` and ``null_high`` (NaN where there is no null).
        title: title of the figure.
        axis_title: title of the x axis, with its unit.
        null: what the grey bars show.
        shares: whether values are shares, shown in per cent; otherwise they are SD, shown with their sign.

    Raises:
        ValueError: if a column is missing, or no value is a number.
    """
    what = "compared runs"
    rows = measured(require(table, COLUMNS, what=what), "value", what=what)
    figure = new_figure(escape_markup(title))
    ticks: dict[float, str] = {}
    place = 0.0
    for run, of_run in rows.groupby("run", sort=False):
        ticks[place] = f"<b>{escape_markup(str(run))}</b>"
        for _, row in of_run.iterrows():
            place += 1
            ticks[place] = escape_markup(str(row["label"]))
            _draw(figure, row, place, shares)
        place += 1 + _GAP
    _draw_null(figure, rows, ticks, null)
    figure.update_yaxes(
        tickvals=list(ticks), ticktext=list(ticks.values()), range=[place - _GAP, -0.7], showgrid=False, ticks=""
    )
    figure.update_xaxes(**(rate_axis(axis_title) if shares else {"title_text": axis_title, "zeroline": True}))
    figure.update_layout(height=int(130 + _ROW * place), hovermode="closest")
    return keys_below(figure, note="Whiskers: 95 % intervals.", r=200)


def _draw(figure: go.Figure, row: pd.Series, place: float, shares: bool) -> None:
    style = model_style(str(row["model"]))
    value, low, high = float(row["value"]), row["low"], row["high"]
    if shares:
        numbers = percent_interval(value, low, high)
    else:
        ends = f" [{low:.2f}, {high:.2f}]" if is_number(low) and is_number(high) else ""
        numbers = f"{signed(value)}{ends}"
    n = f"  n = {counted(row['n'])}" if is_number(row["n"]) else ""
    label = f"{escape_markup(str(row['run']))}, {escape_markup(str(row['label']))}"
    # An open mark means open questions, as in the figure of a single run.
    symbol = f"{style.symbol}-open" if str(row["label"]).endswith("· open") else style.symbol
    figure.add_trace(
        go.Scatter(
            x=[value],
            y=[place],
            mode="markers",
            marker={"color": style.colour, "symbol": symbol, "size": 10, "line": {"width": 2, "color": style.colour}},
            error_x=whiskers([value], [low], [high], colour=style.colour),
            hovertext=[f"{label}<br>{numbers}{n}"],
            hoverinfo="text",
            showlegend=False,
            cliponaxis=False,
        )
    )
    figure.add_annotation(x=1.0, xref="paper", xanchor="left", xshift=12, y=place, yref="y", text=f"{numbers}{n}")


def _draw_null(figure: go.Figure, rows: pd.DataFrame, ticks: dict[float, str], null: str) -> None:
    places = [place for place, text in ticks.items() if not text.startswith("<b>")]
    bounds = list(zip(places, rows["null_low"].tolist(), rows["null_high"].tolist(), strict=True))
    bars = [(place, low, high) for place, low, high in bounds if is_number(low) and is_number(high)]
    if not bars:
        return
    bar = go.Scatter(
        x=[end for _, low, high in bars for end in (low, high, None)],
        y=[end for place, _, _ in bars for end in (place, place, None)],
        mode="lines",
        name=escape_markup(null),
        line={"color": MODEL_STYLES["random"].faded(0.45), "width": 13},
        hoverinfo="skip",
        showlegend=True,
    )
    figure.add_trace(bar)
    figure.data = (figure.data[-1], *figure.data[:-1])
