"""EM rate by model and question set, under one named definition or all of them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.forest import ForestRow, forest
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES, Style
from persona_probe.figures.text import counted, escape_markup, is_number

COLUMNS = ("model", "questions", "definition", "value", "low", "high", "n", "refusals", "failures")
MODELS = ("before", "after", "control", "realigned")
UNSEEN = "unseen topics"
"""The name in a study's tables of the questions that it reports; `called` says what they are."""
QUESTIONS = (UNSEEN, "open", "trained topic")


def em_rates(table: pd.DataFrame, *, definition: str | None = "betley", asked: str = UNSEEN) -> go.Figure:
    """Draw the EM rate of every model on every question set, with 95 % intervals and n.

    Args:
        table: one row per model, question set and definition (the study's ``em_rates`` table), and ``intervention``,
            where the table has such a column; an empty text where there is only one.
        definition: which EM-rate definition to draw; None: all of them, one row each.
        asked: what to call the questions that the table calls "unseen topics".

    Raises:
        ValueError: if a column is missing or empty, or the table has no row of this definition.
    """
    what = "EM rates"
    table = require(table, COLUMNS, what=what)
    rows = table if definition is None else table[table["definition"] == definition]
    if rows.empty:
        known = ", ".join(sorted(str(name) for name in table["definition"].unique()))
        raise MissingDataError(f"{what}: the column 'definition' has no {definition!r}; it holds {known}")
    rows = measured(rows, "value", what=what)
    groups = []
    for model in ordered_models(rows["model"]):
        group = rows[rows["model"] == model].to_dict("records")
        group.sort(
            key=lambda row: QUESTIONS.index(row["questions"]) if row["questions"] in QUESTIONS else len(QUESTIONS)
        )
        groups.append(
            [_estimate({str(key): value for key, value in row.items()}, definition is None, asked) for row in group]
        )
    title = f"EM rate by model ({escape_markup(definition)})" if definition else "EM rate by definition"
    return forest(groups, title=title, axis_title="EM rate (share of answers)")


def ordered_models(names: pd.Series[str]) -> list[str]:
    """The models of a column: those of a study in their usual order, then any others in the column's order."""
    present = [str(name) for name in names.dropna().unique()]
    return [name for name in MODELS if name in present] + [name for name in present if name not in MODELS]


def styles_of(models: Sequence[str]) -> list[Style]:
    """A style for each model: a study's models have fixed ones; others take turns, so that the first few differ."""
    used = {MODEL_STYLES[name].colour for name in models if name in MODEL_STYLES}
    free = sorted(SERIES_STYLES, key=lambda style: style.colour in used)
    others = [name for name in models if name not in MODEL_STYLES]
    return [MODEL_STYLES[name] if name in MODEL_STYLES else free[others.index(name) % len(free)] for name in models]


def called(questions: object, asked: str) -> str:
    """The words for a set of questions: ``asked`` for those that a study's tables call "unseen topics"."""
    return asked if questions == UNSEEN else str(questions)


def _estimate(row: dict[str, object], name_definition: bool, asked: str) -> ForestRow:
    parts = [f"{name}: {counted(value)}" for name in ("refusals", "failures") if is_number(value := row[name])]
    value, low, high, n = (
        float(number) if is_number(number := row[name]) else float("nan") for name in ("value", "low", "high", "n")
    )
    names = [str(row["model"]), str(row.get("intervention", "")), called(row["questions"], asked)]
    names += [str(row["definition"])] if name_definition else []
    return ForestRow(
        model=str(row["model"]),
        label=" · ".join(name for name in names if name),
        value=value,
        low=low,
        high=high,
        n=n,
        filled=row["questions"] in (UNSEEN, ""),
        detail="".join(f"<br>{part}" for part in parts),
    )
