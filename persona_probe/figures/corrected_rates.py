"""EM rates as the judge flags them, and corrected for its errors, with both intervals."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.forest import ForestRow, forest
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, require

WHAT = "corrected rates"
COLUMNS = ("name", "flagged", "flagged_low", "flagged_high", "value", "low", "high", "n", "labels")


def corrected_rates(table: pd.DataFrame, *, definition: str) -> go.Figure:
    """Draw two rows per group: the rate that the judge flags (open mark), and the corrected one.

    Args:
        table: one row per group, with ``name``, ``flagged``, ``flagged_low``, ``flagged_high``, ``value``, ``low``,
            ``high``, ``n`` (answers) and ``labels`` (`persona_probe.behaviour.CorrectedRates`).
        definition: which EM rate.

    Raises:
        ValueError: if a column is missing, or no rate is a number.
    """
    rows = require(table, COLUMNS, what=WHAT)
    groups = []
    for row in rows.to_dict("records"):
        name = str(row["name"])
        marks = [
            ForestRow(
                name,
                f"{name}{', ' if name else ''}{label}",
                float(row[value]),
                float(row[low]),
                float(row[high]),
                float(row[n]),
                filled,
                f" {unit}",
            )
            for label, value, low, high, n, unit, filled in (
                ("as flagged", "flagged", "flagged_low", "flagged_high", "n", "answers", False),
                ("corrected", "value", "low", "high", "labels", "labels", True),
            )
            if not pd.isna(row[value])
        ]
        groups += [marks] if marks else []
    if not groups:
        raise MissingDataError(f"{WHAT}: the columns 'flagged' and 'value' hold no number")
    figure = forest(groups, title="EM rates, corrected for the judge's errors", axis_title=f"EM rate ({definition})")
    note = "n: answers as flagged; labels as corrected. Whiskers: 95 %, over questions and for the judge's errors."
    return keys_below(figure, note=note, keys=False, r=190)
