"""How far the preference of this run's models rose, between those of organisms that were measured before."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.rows import Mark, add_marks, label_rows
from persona_probe.figures.template import SERIES_STYLES
from persona_probe.figures.text import counted, escape_markup, signed_interval

COLUMNS = ("organism", "source", "measure", "value", "low", "high", "n")
RISE = "preference rise"
"""The measure that is drawn."""


def organisms(table: pd.DataFrame) -> go.Figure:
    """Draw a row for each organism, and a mark in it for this run and for what was measured before.

    Args:
        table: one row per organism, ``source`` (this run or measured before) and ``measure``.

    Raises:
        ValueError: if a column is missing, or no rise is a number.
    """
    what = "organisms"
    every = require(table, COLUMNS, what=what)
    rows = measured(every[every["measure"] == RISE], "value", what=what)
    names = list(dict.fromkeys(rows["organism"].astype(str)))
    figure = new_figure("Rise of the preference for misaligned answers")
    sources = list(dict.fromkeys(rows["source"].astype(str)))
    for number, source in enumerate(sources):
        shift = 0.22 * (number - (len(sources) - 1) / 2)
        marks = [
            Mark(
                place=names.index(str(row["organism"])) + shift,
                value=float(row["value"]),
                low=float(row["low"]),
                high=float(row["high"]),
                hover=f"{escape_markup(row['organism'])}, {escape_markup(source)}<br>"
                f"{signed_interval(row['value'], row['low'], row['high'])} nats per token, n = {counted(row['n'])}",
            )
            for row in rows[rows["source"] == source].to_dict("records")
        ]
        add_marks(figure, marks, escape_markup(source), SERIES_STYLES[number], showlegend=True)
    figure.add_vline(x=0.0, line_dash="dot")
    figure.update_xaxes(title_text="rise of the margin, nats per token")
    label_rows(figure, names)
    figure.update_layout(height=190 + 34 * len(names))
    return keys_below(
        figure, note="95 % intervals over questions and runs. The null is 0, and the controls gruff and good."
    )
