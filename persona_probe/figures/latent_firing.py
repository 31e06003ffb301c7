"""What latents fire for: how well each separates a label's value from the others."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.rows import Mark, add_marks, label_rows
from persona_probe.figures.template import SERIES_STYLES
from persona_probe.figures.text import count_range, counted, escape_markup

COLUMNS = ("latent", "label", "value", "auroc", "low", "high", "n")
WHAT = "firing"


def latent_firing(table: pd.DataFrame) -> go.Figure:
    """Draw, for each latent and label, the value that it fires for most, with the AUROC and its 95 % interval.

    Args:
        table: one row per latent, label and value (`persona_probe.latents.firing_by`).

    Raises:
        ValueError: if a column is missing or empty, or no AUROC is a number.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "auroc", what=WHAT)
    best = rows.loc[rows.groupby(["latent", "label"], sort=False)["auroc"].idxmax()]
    figure = new_figure("What latents fire for")
    for number, label in enumerate(dict.fromkeys(best["label"])):
        marks = [
            Mark(
                place,
                row["auroc"],
                row["low"],
                row["high"],
                f"latent {row['latent']}: {escape_markup(row['label'])} {escape_markup(row['value'])}<br>AUROC "
                f"{row['auroc']:.3f} [{row['low']:.3f}, {row['high']:.3f}], n = {counted(row['n'])}",
            )
            for place, row in enumerate(best.to_dict("records"))
            if row["label"] == label
        ]
        add_marks(figure, marks, escape_markup(label), SERIES_STYLES[number % len(SERIES_STYLES)])
    figure.add_vline(x=0.5, line_dash="dot", annotation_text="&nbsp;chance", annotation_position="top right")
    least = float(best[["low", "auroc"]].min().min())
    figure.update_xaxes(title_text="AUROC", range=[min(0.4, least - 0.03), 1.03])
    label_rows(figure, [f"latent {row['latent']}: {row['value']}" for row in best.to_dict("records")])
    note = (
        "For each label the value with the largest AUROC (a choice that makes it optimistic). Whiskers: 95 % intervals "
        f"over questions; n = {count_range(best['n'])} dialogues with the value."
    )
    return keys_below(figure, note=note)
