"""How far interventions move the next-token distributions away from the unsteered model's."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.rows import Mark, add_marks, label_rows
from persona_probe.figures.template import SERIES_STYLES
from persona_probe.figures.text import count_range, counted, escape_markup

COLUMNS = ("intervention", "kl", "kl_low", "kl_high", "kl_p95", "kl_p95_low", "kl_p95_high", "tokens", "questions")
WHAT = "divergence"


def divergence(table: pd.DataFrame) -> go.Figure:
    """Draw mean and 95 % quantile of the KL under each intervention, with 95 % intervals; 0 is the unsteered model.

    Args:
        table: one row per intervention (`Divergence.to_frame`).

    Raises:
        ValueError: if a column is missing or empty, or no KL is a finite number.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "kl", what=WHAT)
    figure = new_figure("KL to the unsteered model")
    for number, (name, column) in enumerate((("mean over tokens", "kl"), ("95 % quantile over tokens", "kl_p95"))):
        marks = [
            Mark(
                place + 0.16 * (2 * number - 1),
                row[column],
                row[f"{column}_low"],
                row[f"{column}_high"],
                f"{escape_markup(row['intervention'])}, {name}<br>{row[column]:.3g} "
                f"[{row[f'{column}_low']:.3g}, {row[f'{column}_high']:.3g}] nats, n = {counted(row['tokens'])} tokens",
            )
            for place, row in enumerate(rows.to_dict("records"))
        ]
        add_marks(figure, marks, name, SERIES_STYLES[number])
    label_rows(figure, rows["intervention"].tolist())
    figure.update_xaxes(title_text="KL (nats per token)", rangemode="tozero")
    note = (
        f"Whiskers: 95 % intervals over {count_range(rows['questions'])} questions; "
        f"n = {count_range(rows['tokens'])} tokens. The unsteered model is 0."
    )
    return keys_below(figure, note=note)
