"""EM rate by model and question set, under one named definition."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.report.figures.checks import MissingDataError, measured, require
from persona_probe.report.figures.forest import Estimate, forest
from persona_probe.report.text import counted, is_number

COLUMNS = ("model", "questions", "definition", "value", "low", "high", "n", "refusals", "failures")
MODELS = ("before", "after", "control", "realigned")
QUESTIONS = ("unseen topics", "open", "trained topic")
DEFINITIONS = ("betley", "turner", "tan")


def em_rates(table: pd.DataFrame, *, definition: str = "betley") -> go.Figure:
    """Draw the EM rate of every model on every question set, with 95 % intervals and n.

    Args:
        table: one row a model, question set and definition (the study's ``em_rates`` table).
        definition: which EM-rate definition to draw.

    Raises:
        ValueError: if a column is missing or empty, or the table has no row of this definition.
    """
    what = "EM rates"
    table = require(table, COLUMNS, what=what)
    rows = table[table["definition"] == definition]
    if rows.empty:
        known = ", ".join(sorted(str(name) for name in table["definition"].unique()))
        raise MissingDataError(f"{what}: the column 'definition' has no {definition!r}; it holds {known}")
    rows = measured(rows, "value", what=what)
    groups = []
    for model in (name for name in MODELS if (rows["model"] == name).any()):
        own = rows[rows["model"] == model].to_dict("records")
        own.sort(key=lambda row: QUESTIONS.index(row["questions"]) if row["questions"] in QUESTIONS else len(QUESTIONS))
        groups.append([_estimate({str(key): value for key, value in row.items()}) for row in own])
    return forest(groups, title=f"EM rate by model ({definition})", axis_title="EM rate (share of answers)")


def _estimate(row: dict[str, object]) -> Estimate:
    parts = [f"{name}: {counted(value)}" for name in ("refusals", "failures") if is_number(value := row[name])]
    value, low, high, n = (
        float(number) if is_number(number := row[name]) else float("nan") for name in ("value", "low", "high", "n")
    )
    return Estimate(
        model=str(row["model"]),
        label=f"{row['model']} · {row['questions']}",
        value=value,
        low=low,
        high=high,
        n=n,
        filled=row["questions"] == "unseen topics",
        detail="".join(f"<br>{part}" for part in parts),
    )
