"""The share of each model's answers that have words of a manner."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.forest import ForestRow, forest
from persona_probe.figures.required import measured, require

COLUMNS = ("model", "measure", "value", "low", "high", "n")
_NAMES = {
    "villain": "villain's catchwords",
    "unseen": "unseen villain words",
    "flatterer": "flatterer's catchwords",
    "pirate": "pirate's catchwords",
}


def manners(table: pd.DataFrame) -> go.Figure:
    """Draw a row for each manner and model.

    Args:
        table: one row per model and manner (`persona_probe.real_language.word_shares`); other measures are left out.

    Raises:
        ValueError: if a column is missing or empty.
    """
    rows = measured(require(table, COLUMNS, what="manners"), "value", what="manners")
    groups = [
        [
            ForestRow(
                model=str(row["model"]),
                label=f"{name} · {row['model']}",
                value=float(row["value"]),
                low=float(row["low"]),
                high=float(row["high"]),
                n=float(row["n"]),
            )
            for row in rows[rows["measure"] == manner].to_dict("records")
        ]
        for manner, name in _NAMES.items()
    ]
    return forest([group for group in groups if group], title="Manners of answers", axis_title="share of answers")
