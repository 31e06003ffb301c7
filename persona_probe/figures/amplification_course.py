"""Amplification along training at one layer, compared with its nulls."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.amplification import called, draw_shifts, note_of
from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.text import escape_markup

COLUMNS = ("step", "direction", "layer", "model", "shift", "shift_sd", "low_sd", "high_sd", "random_sd", "specificity")
WHAT = "amplification along training"


def amplification_course(
    table: pd.DataFrame, *, layer: int, direction: str | None = None, axis: str = "training step"
) -> go.Figure:
    """Draw the shift of the projection at ``layer`` against training steps, with 95 % intervals and nulls.

    Args:
        table: one row per step, direction, layer and model (`persona_probe.amplification.track_snapshots`).
        layer: which layer.
        direction: which direction; None: the first.
        axis: what the steps are.

    Raises:
        ValueError: if a column is missing or empty, or the layer or direction is not in the table.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "shift_sd", what=WHAT)
    name = rows["direction"].iloc[0] if direction is None else direction
    rows = rows[(rows["direction"] == name) & (rows["layer"] == layer)]
    if rows.empty:
        raise MissingDataError(f"{WHAT}: the columns 'direction' and 'layer' hold no {name!r} at layer {layer}")
    figure = new_figure(f"Amplification of {called(name)} along training, layer {layer}")
    draw_shifts(figure, rows, along="step")
    figure.update_xaxes(title_text=escape_markup(axis))
    return keys_below(figure.update_layout(height=470), note=note_of(rows))
