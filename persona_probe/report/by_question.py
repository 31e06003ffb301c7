"""EM rates by topic or by question, from a run's judged answers."""

from __future__ import annotations

import pandas as pd

from persona_probe.behaviour.em_rates import em_rates
from persona_probe.figures.em_rates import UNSEEN
from persona_probe.runs.record import RunRecord

NEEDS = ("model", "question", "aligned", "coherent", "refusal", "failed")
_FEW = 4
"""Answers a question, on average, below which a rate of one question says nothing."""


def unit_of(run: RunRecord) -> str | None:
    """What rates are listed by: ``group`` (topics), ``question``, or None where too few answers are alike."""
    rows = reported_answers(run)
    if rows.empty:
        return None
    if "group" in rows and len(set(rows["group"].dropna())) > 1:
        return "group"
    return "question" if len(rows) / rows.groupby(["model", "question"]).ngroups >= _FEW else None


def rates_by_question(run: RunRecord) -> pd.DataFrame:
    """One row a topic (or question), model and definition; empty where the run's answers allow none.

    The column is called ``topic`` or ``question``.
    """
    unit = unit_of(run)
    if unit is None:
        return pd.DataFrame()
    rows = reported_answers(run)
    table = em_rates(rows[rows[unit].notna()], ["model", unit]).to_frame()
    return table.rename(columns={"group": "topic"})


def reported_answers(run: RunRecord) -> pd.DataFrame:
    """The judged answers to the reported questions: those on unseen topics, or all if none is called so."""
    table = run.tables.get("answers", pd.DataFrame())
    if table.empty or any(name not in table for name in NEEDS):
        return pd.DataFrame()
    asked = table["questions"] == UNSEEN if "questions" in table else pd.Series(data=True, index=table.index)
    return table[asked] if asked.any() else table
