"""How far preference moved, against the EM rate of sampled answers: one mark per fine-tuned model."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES
from persona_probe.figures.text import escape_markup, percent, signed

COLUMNS = ("panel", "persona", "name", "em_rate", "em_low", "em_high", "value", "low", "high")


def preference_against_rates(table: pd.DataFrame, *, note: str = "") -> go.Figure:
    """Draw the change of a preference against the EM rate, one panel per measure, with 95 % intervals.

    Args:
        table: one row per panel and model: ``panel`` (the measure), ``persona`` (the series), ``name``, ``em_rate``
            with its interval ``em_low`` and ``em_high``, and the change ``value`` with ``low`` and ``high``.
        note: what is written under the title, such as correlations.

    Raises:
        ValueError: if a column is missing, or no value is a number.
    """
    what = "preference against EM rate"
    rows = measured(require(table, COLUMNS, what=what), "value", what=what)
    panels = list(dict.fromkeys(rows["panel"].astype(str)))
    personas = list(dict.fromkeys(rows["persona"].astype(str)))
    figure = new_figure(
        "Preference against EM rate",
        cols=len(panels),
        shared_yaxes=True,
        horizontal_spacing=0.05,
        subplot_titles=[escape_markup(panel) for panel in panels],
    )
    others = [style for style in SERIES_STYLES if style.colour != MODEL_STYLES["after"].colour]
    for number, persona in enumerate(personas):
        style = MODEL_STYLES["after"] if number == 0 else others[(number - 1) % len(others)]
        for col, panel in enumerate(panels, start=1):
            part = rows[(rows["panel"] == panel) & (rows["persona"] == persona)]
            columns = {column: part[column].astype(float).tolist() for column in COLUMNS[3:]}
            figure.add_trace(
                go.Scatter(
                    x=columns["em_rate"],
                    y=columns["value"],
                    mode="markers",
                    name=escape_markup(persona),
                    legendgroup=persona,
                    showlegend=col == 1,
                    marker={"color": style.colour, "symbol": style.symbol, "size": 8},
                    error_x=whiskers(
                        columns["em_rate"],
                        columns["em_low"],
                        columns["em_high"],
                        colour=style.faded(0.45),
                        width=0,
                        thickness=1,
                    ),
                    error_y=whiskers(
                        columns["value"],
                        columns["low"],
                        columns["high"],
                        colour=style.faded(0.45),
                        width=0,
                        thickness=1,
                    ),
                    hovertext=[
                        f"{escape_markup(row['name'])}<br>EM rate {percent(row['em_rate'])}"
                        f"<br>{escape_markup(panel)} {signed(row['value'])} nats per token"
                        for row in part.to_dict("records")
                    ],
                    hoverinfo="text",
                ),
                row=1,
                col=col,
            )
    figure.add_hline(y=0.0, line_dash="dot")
    figure.update_xaxes(**rate_axis("EM rate of sampled answers"))
    figure.update_yaxes(title_text="change, nats per token", row=1, col=1)
    figure.update_layout(height=460, hovermode="closest")
    return keys_below(figure, note=escape_markup(note), top=28)
