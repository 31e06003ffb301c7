"""The numbers of several runs, in one table per topic with a column ``run``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from persona_probe.figures.em_rates import MODELS, UNSEEN, called
from persona_probe.figures.realignment_rows import benign_rows
from persona_probe.figures.steering import STARTS, is_judged, reported_summary
from persona_probe.figures.steering import reported_rows as steering_rows
from persona_probe.report.comparison.compared_run import ComparedRun
from persona_probe.report.facts import facts_of

ROWS = ("run", "label", "model", "value", "low", "high", "n", "null_low", "null_high")
"""Columns of a table of rows: an estimate with its interval, and the range of its null."""
POINTS = ("run", "x", "value", "low", "high", "n")
"""Columns of a table of curves."""
ASKED = (UNSEEN, "open")


def rates(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """EM rates of every run, model and set of questions, each by the definition of its run (`ROWS`)."""
    rows = []
    for run in runs:
        table = run.record.tables.get("em_rates", pd.DataFrame())
        if not {"model", "questions", "definition", "value", "low", "high", "n"} <= set(table):
            continue
        of_run = table[table["definition"] == run.definition]
        for model in MODELS:
            for asked in ASKED:
                label = f"{model} · {called(asked, facts_of(run.record).asked)}"
                for _, rate in of_run[(of_run["model"] == model) & (of_run["questions"] == asked)].iterrows():
                    rows.append(_row(run, label, model, rate, "value", "low", "high"))
    return pd.DataFrame(rows, columns=list(ROWS)).dropna(subset=["value"])


def shifts(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """The shift of each run's projection at its chosen layer, with 97.5 % of random directions (`ROWS`)."""
    rows = []
    for run in runs:
        table = run.record.tables.get("amplification", pd.DataFrame())
        if not {"layer", "model", "shift_sd", "low_sd", "high_sd", "random_sd", "chosen"} <= set(table):
            continue
        chosen = table[table["chosen"].eq(True)]
        if "direction" in chosen and len(chosen):
            chosen = chosen[chosen["direction"] == chosen["direction"].iloc[0]]
        for _, shift in chosen.iterrows():
            label = f"{shift['model']} · layer {shift['layer']:.0f}"
            row = _row(run, label, str(shift["model"]), shift, "shift_sd", "low_sd", "high_sd")
            rows.append({**row, "null_low": -shift["random_sd"], "null_high": shift["random_sd"]})
    return pd.DataFrame(rows, columns=list(ROWS)).dropna(subset=["value"])


def steered(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """EM rates under steering; the null is the range of the random directions of the same goal (`ROWS`).

    Without runs that measured preference, whose numbers are no rates.
    """
    rows: list[dict[str, Any]] = []
    for run in runs:
        table = run.record.tables.get("steering", pd.DataFrame())
        try:
            summary = reported_summary(table)
        except ValueError:
            continue
        if not summary or not is_judged(table):
            continue
        for rate in summary:
            goal, kind = str(rate["goal"]), str(rate["intervention"])
            if rate["draws"]:
                continue  # the null of the rows above, drawn in the same rows
            model = STARTS[goal] if kind == "none" else "steered"
            label = f"{goal} · {'unsteered' if kind == 'none' else kind}"
            row = _row(run, label, model, pd.Series(rate), "value", "low", "high")
            rows.append({**row, **({} if kind == "none" else _random_range(table, goal, kind))})
    return pd.DataFrame(rows, columns=list(ROWS)).dropna(subset=["value"])


def realigned(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """The EM rate of each run by number of benign examples (`POINTS`)."""
    rows = []
    for run in runs:
        table = benign_rows(run.record.tables.get("realignment", pd.DataFrame()))
        if {"n", "value", "low", "high", "rows"} <= set(table):
            columns = {"n": "x", "value": "value", "low": "low", "high": "high", "rows": "n"}
            points = table.sort_values("n")[list(columns)].rename(columns=columns).assign(run=run.name)
            rows += points.to_dict("records")
    return pd.DataFrame(rows, columns=list(POINTS)).dropna(subset=["value"])


def _random_range(table: pd.DataFrame, goal: str, kind: str) -> dict[str, float]:
    rows = steering_rows(table, goal)
    # Only of that kind: random directions that another kind moves, at other layers, are not a null of this one.
    draws = rows.loc[(rows["intervention"] == f"random {kind}") & rows["draw"].notna(), "value"]
    return {"null_low": float(draws.min()), "null_high": float(draws.max())} if len(draws) else {}


def _row(run: ComparedRun, label: str, model: str, row: pd.Series, value: str, low: str, high: str) -> dict[str, Any]:
    nothing = float("nan")
    ends = {"value": row[value], "low": row[low], "high": row[high], "n": row.get("n", nothing)}
    return {"run": run.name, "label": label, "model": model, **ends, "null_low": nothing, "null_high": nothing}
