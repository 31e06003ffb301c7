"""What models prefer: the margin of misaligned over aligned answers, its controls, and each pole by itself."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.rows import Mark, add_marks, label_rows
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES, Style
from persona_probe.figures.text import count_range, counted, escape_markup, signed_interval

COLUMNS = ("model", "kind", "measure", "value", "low", "high", "n")
_SERIES: tuple[tuple[int, str, str, str, Style], ...] = (
    (1, "margin", "content", "margin", MODEL_STYLES["after"]),
    (1, "shuffled", "content", "margin after other questions", SERIES_STYLES[3]),
    (1, "margin", "style", "margin of style nulls", MODEL_STYLES["random"]),
    (2, "aligned", "content", "aligned answers", MODEL_STYLES["before"]),
    (2, "misaligned", "content", "misaligned answers", SERIES_STYLES[0]),
)
"""Of each series: its panel, measure, kind of pair, name and style."""


def preference(table: pd.DataFrame) -> go.Figure:
    """Draw every model's margins, and the log-probabilities of both poles, with 95 % intervals.

    Args:
        table: one row per model, kind of pair and measure (`persona_probe.behaviour.Preference.table`).

    Raises:
        ValueError: if a column is missing, or no value is a number.
    """
    what = "preference"
    rows = measured(require(table, COLUMNS, what=what), "value", what=what)
    models = list(dict.fromkeys(rows["model"].astype(str)))
    figure = new_figure(
        "Preference for misaligned answers",
        cols=2,
        shared_yaxes=True,
        horizontal_spacing=0.05,
        subplot_titles=("misaligned minus aligned", "each pole"),
    )
    drawn = [series for series in _SERIES if _of(rows, *series[1:3]).any()]
    for col, measure, kind, name, style in drawn:
        part = rows[_of(rows, measure, kind)]
        own = [series for series in drawn if series[0] == col]
        step = 0.44 / len(own)
        shift = step * (own.index((col, measure, kind, name, style)) - (len(own) - 1) / 2)
        add_marks(figure, _marks(part, models, name, shift), name, style, col=col, showlegend=True)
    figure.add_vline(x=0.0, line_dash="dot", row=1, col=1)
    figure.update_xaxes(title_text="nats per token", row=1, col=1)
    figure.update_xaxes(title_text="log-probability, nats per token", row=1, col=2)
    label_rows(figure, models)
    counts = count_range(rows["n"])
    note = f"Means over questions (n = {counts}), with 95 % intervals over questions and runs."
    figure.update_layout(height=230 + 46 * len(models))
    return keys_below(figure, note=note, top=28)


def _of(rows: pd.DataFrame, measure: str, kind: str) -> pd.Series[bool]:
    return (rows["measure"] == measure) & (rows["kind"] == kind)


def _marks(part: pd.DataFrame, models: Sequence[str], name: str, shift: float) -> list[Mark]:
    return [
        Mark(
            place=models.index(str(row["model"])) + shift,
            value=float(row["value"]),
            low=float(row["low"]),
            high=float(row["high"]),
            hover=f"{escape_markup(row['model'])}<br>{name}: {_numbers(row['value'], row['low'], row['high'])}"
            f"<br>n = {counted(row['n'])}",
        )
        for row in part.to_dict("records")
    ]


def _numbers(value: float, low: object, high: object) -> str:
    return f"{signed_interval(value, low, high)} nats per token"
