"""Whether the direction of one organism removes the misalignment of another: EM rates with it clamped."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.forest import ForestRow, forest
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.text import is_number, percent

COLUMNS = ("organism", "direction", "layer", "intervention", "value", "low", "high", "n", "coherent")
WHAT = "cross ablation"
_MODELS = {"none": "after", "clamp": "steered", "random clamp": "random"}


def cross_ablation(table: pd.DataFrame) -> go.Figure:
    """Draw each organism's EM rate: unsteered, with each direction clamped, and with random ones moved as far.

    Args:
        table: one row per condition (`persona_probe.cross_ablation`).

    Raises:
        ValueError: if a column is missing or empty.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "value", what=WHAT)
    groups = [[_estimate(row) for row in part.to_dict("records")] for _, part in rows.groupby("organism", sort=False)]
    figure = forest(
        groups, title="Clamping one organism's direction in another", axis_title="EM rate (share of answers)"
    )
    note = (
        "Whiskers: 95 % intervals over questions. Null, grey: random directions with the same displacement. "
        "Hovering shows how many answers are still coherent."
    )
    return keys_below(figure, note=note, keys=False, r=190)


def _estimate(row: dict[Any, Any]) -> ForestRow:
    kind = str(row["intervention"])
    names = {
        "none": "unsteered",
        "clamp": f"{row['direction']} clamped",
        "random clamp": f"random, for {row['direction']}",
    }
    value, low, high, n = (float(str(row[column])) for column in ("value", "low", "high", "n"))
    coherent = row["coherent"]
    detail = f"<br>coherent: {percent(coherent)}" if is_number(coherent) else ""
    detail += f"<br>layer {row['layer']:g}" if is_number(row["layer"]) else ""
    name = names.get(kind, kind)
    return ForestRow(_MODELS.get(kind, "steered"), f"{row['organism']} · {name}", value, low, high, n, detail=detail)
