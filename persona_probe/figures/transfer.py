"""Probes trained on one part and tested on another: the AUROC for every pair of parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.matrix import Matrix, heatmap
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.text import count_range, counted, escape_markup

COLUMNS = ("train", "test", "layer", "value", "low", "high", "n")
WHAT = "probe transfer"


def transfer(table: pd.DataFrame, *, layer: int) -> go.Figure:
    """Draw the AUROC of each pair at ``layer``; cells whose interval contains 0.5 are in parentheses.

    Args:
        table: one row per layer and pair (`persona_probe.probes.transfer_matrix`); ``method`` says why a cell is empty.
        layer: which layer.

    Raises:
        ValueError: if a column is missing or empty, or the layer is not in the table.
    """
    rows = require(table, COLUMNS, what=WHAT)
    measured(rows, "value", what=WHAT)
    rows = rows[rows["layer"] == layer]
    if rows.empty:
        raise MissingDataError(f"{WHAT}: the column 'layer' holds no {layer}")
    names = list(dict.fromkeys(rows["train"])), list(dict.fromkeys(rows["test"]))
    shape = len(names[0]), len(names[1])
    values, unsure = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    hover, intervals = [[""] * shape[1] for _ in names[0]], [[""] * shape[1] for _ in names[0]]
    for row in rows.to_dict("records"):
        at = names[0].index(row["train"]), names[1].index(row["test"])
        values[at] = row["value"]
        unsure[at] = not (row["low"] > 0.5 or row["high"] < 0.5)
        intervals[at[0]][at[1]] = f"[{row['low']:.2f}, {row['high']:.2f}]" if pd.notna(row["low"]) else "no interval"
        hover[at[0]][at[1]] = _hover(row)
    return heatmap(
        Matrix(names[0], names[1], values, hover, unsure, intervals),
        title=f"Probe transfer, layer {layer}",
        note=_note(rows),
        quantity="AUROC",
        middle=0.5,
        ends=(0.0, 1.0),
        axes=("tested on", "trained on"),
    )


def _hover(row: dict[Any, Any]) -> str:
    text = f"trained on {escape_markup(row['train'])}, tested on {escape_markup(row['test'])}<br>"
    if pd.isna(row["value"]):
        return f"{text}none: {escape_markup(row.get('method', ''))}"
    text += f"AUROC {row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}], n = {counted(row['n'])}"
    return f"{text}<br>{escape_markup(row['method'])}" if row.get("method") else text


def _note(rows: pd.DataFrame) -> str:
    grouping = f", split {escape_markup(rows['grouping'].iloc[0])}" if "grouping" in rows else ""
    n = rows.loc[rows["value"].notna(), "n"]
    return (
        f"AUROC with its 95 % interval; n = {count_range(n)} dialogues per cell. Diagonal: cross-validated{grouping}. "
        "Chance is 0.5; cells whose interval contains it are in parentheses."
    )
