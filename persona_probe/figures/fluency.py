"""The share of fluent answers of each group, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.forest import ForestRow, forest
from persona_probe.figures.required import measured, require

COLUMNS = ("measure", "value", "low", "high", "n")
WHAT = "fluency"


def fluency(table: pd.DataFrame, faults: Mapping[str, str]) -> go.Figure:
    """Draw a row for the share of fluent answers of each group, and one for each fault that any of its answers has.

    Args:
        table: one row per group and measure (`Fluency.summary`): columns that name the group, then ``measure``,
            ``value``, ``low``, ``high``, ``n``.
        faults: the measures that are faults, and their names in words.

    Raises:
        ValueError: if a column is missing or empty.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "value", what=WHAT)
    names = list(rows.columns[: list(rows.columns).index("measure")])
    words = {"fluent": "fluent", **faults}
    shown = rows[(rows["measure"] == "fluent") | (rows["measure"].isin(list(faults)) & (rows["value"] > 0))]
    parts = shown.groupby(names, sort=False, dropna=False) if names else [((), shown)]
    groups = [
        [
            ForestRow(
                model=str(row.get("model", "after")),
                label=" · ".join([*(str(row[name]) for name in names), words[str(row["measure"])]]),
                value=float(row["value"]),
                low=float(row["low"]),
                high=float(row["high"]),
                n=float(row["n"]),
                filled=row["measure"] == "fluent",
            )
            for row in part.to_dict("records")
        ]
        for _, part in parts
    ]
    return forest(groups, title="Fluency of answers, without a judge", axis_title="share of answers")
