"""EM rates of several runs against the number of benign examples."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.keys import keys_below
from persona_probe.figures.realignment import TARGET, places_of
from persona_probe.figures.required import measured, require
from persona_probe.figures.template import SERIES_STYLES
from persona_probe.figures.text import counted, escape_markup, percent_interval

COLUMNS = ("run", "x", "value", "low", "high", "n")


def compared_curves(table: pd.DataFrame) -> go.Figure:
    """Draw the EM rate of each run after realignment on n benign examples, with 95 % intervals.

    Args:
        table: one row per run and number of examples, with the columns ``run``, ``x`` (examples), ``value``, ``low``,
            ``high`` and ``n`` (answers).

    Raises:
        ValueError: if a column is missing, or no value is a number.
    """
    what = "compared realignment"
    rows = measured(require(table, COLUMNS, what=what), "value", what=what)
    figure = new_figure("Realignment by run")
    places = places_of(rows["x"].tolist())
    for position, (run, of_run) in enumerate(rows.groupby("run", sort=False)):
        style = SERIES_STYLES[position % len(SERIES_STYLES)]
        of_run = of_run.sort_values("x")
        value, low, high = (of_run[name].astype(float).tolist() for name in ("value", "low", "high"))
        hover = [
            f"{escape_markup(str(run))}, {counted(x)} examples<br>{percent_interval(*ends)}, n = {counted(n)}"
            for x, n, ends in zip(of_run["x"], of_run["n"], zip(value, low, high, strict=True), strict=True)
        ]
        figure.add_trace(
            go.Scatter(
                x=[places[x] for x in of_run["x"]],
                y=value,
                mode="lines+markers",
                name=escape_markup(str(run)),
                line={"color": style.colour, "dash": style.dash, "width": 2.4},
                marker={"symbol": style.symbol, "size": 9},
                error_y=whiskers(value, low, high, colour=style.colour),
                hovertext=hover,
                hoverinfo="text",
                showlegend=True,
                cliponaxis=False,
            )
        )
    figure.add_hline(
        y=TARGET, line_dash="dot", annotation_text=f"&nbsp;{100 * TARGET:.0f} %", annotation_position="top left"
    )
    figure.update_yaxes(**rate_axis("EM rate", top=max(0.1, float(rows["high"].fillna(rows["value"]).max()))))
    figure.update_xaxes(
        title_text="benign examples (log scale; 0 set apart)",
        tickvals=list(places.values()),
        ticktext=[counted(n) for n in places],
        range=[min(places.values()) - 0.5, max(places.values()) + 0.5],
    )
    return keys_below(figure.update_layout(height=440), note="Whiskers: 95 % intervals over questions.")
