"""The numbers of several runs in one table each, with a column ``run``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from persona_probe.figures.em_rates import MODELS, UNSEEN, called
from persona_probe.figures.steering import STARTS, reported_summary
from persona_probe.figures.steering import reported_rows as steering_rows
from persona_probe.report.comparison.compared_run import ComparedRun
from persona_probe.report.facts import facts_of

ROWS = ("run", "label", "model", "value", "low", "high", "n", "null_low", "null_high")
"""Columns of a table of rows: an estimate with its interval, and the range of its null."""
POINTS = ("run", "x", "value", "low", "high", "n")
"""Columns of a table of curves."""
ASKED = (UNSEEN, "open")


def rates(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """EM rates of every run, model and set of questions, each under the run's own definition (`ROWS`)."""
    rows = []
    for run in runs:
        table = run.record.tables.get("em_rates", pd.DataFrame())
        if not {"model", "questions", "definition", "value", "low", "high", "n"} <= set(table):
            continue
        own = table[table["definition"] == run.definition]
        for model in MODELS:
            for asked in ASKED:
                for _, found in own[(own["model"] == model) & (own["questions"] == asked)].iterrows():
                    rows.append(
                        _row(
                            run,
                            f"{model} · {called(asked, facts_of(run.record).asked)}",
                            model,
                            found,
                            "value",
                            "low",
                            "high",
                        )
                    )
    return pd.DataFrame(rows, columns=list(ROWS)).dropna(subset=["value"])


def shifts(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """Shift of each run's projection at its chosen layer, beside 97.5 % of random directions (`ROWS`)."""
    rows = []
    for run in runs:
        table = run.record.tables.get("amplification", pd.DataFrame())
        if not {"layer", "model", "shift_sd", "low_sd", "high_sd", "random_sd", "chosen"} <= set(table):
            continue
        own = table[table["chosen"].eq(True)]
        if "direction" in own and len(own):
            own = own[own["direction"] == own["direction"].iloc[0]]
        for _, found in own.iterrows():
            label = f"{found['model']} · layer {found['layer']:.0f}"
            row = _row(run, label, str(found["model"]), found, "shift_sd", "low_sd", "high_sd")
            rows.append({**row, "null_low": -found["random_sd"], "null_high": found["random_sd"]})
    return pd.DataFrame(rows, columns=list(ROWS)).dropna(subset=["value"])


def steered(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """EM rates under steering; the null is the range of the random directions of the same goal (`ROWS`)."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        table = run.record.tables.get("steering", pd.DataFrame())
        try:
            summary = reported_summary(table)
        except ValueError:
            continue
        for found in summary:
            goal, kind = str(found["goal"]), str(found["intervention"])
            if found["draws"]:
                continue  # the null of the rows above, drawn beside them
            model = STARTS[goal] if kind == "none" else "steered"
            label = f"{goal} · {'unsteered' if kind == 'none' else kind}"
            row = _row(run, label, model, pd.Series(found), "value", "low", "high")
            rows.append({**row, **({} if kind == "none" else _random_range(table, goal, kind))})
    return pd.DataFrame(rows, columns=list(ROWS)).dropna(subset=["value"])


def realigned(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """EM rate of each run against the number of benign examples (`POINTS`)."""
    rows = []
    for run in runs:
        table = run.record.tables.get("realignment", pd.DataFrame())
        if {"n", "value", "low", "high", "rows"} <= set(table):
            rows += [
                {
                    "run": run.name,
                    "x": found["n"],
                    "value": found["value"],
                    "low": found["low"],
                    "high": found["high"],
                    "n": found["rows"],
                }
                for _, found in table.sort_values("n").iterrows()
            ]
    return pd.DataFrame(rows, columns=list(POINTS)).dropna(subset=["value"])


def _random_range(table: pd.DataFrame, goal: str, kind: str) -> dict[str, float]:
    rows = steering_rows(table, goal)
    # Of that kind alone: random directions moved as far by another kind, at other layers, are no null of this one.
    draws = rows.loc[(rows["intervention"] == f"random {kind}") & rows["draw"].notna(), "value"]
    return {"null_low": float(draws.min()), "null_high": float(draws.max())} if len(draws) else {}


def _row(run: ComparedRun, label: str, model: str, found: pd.Series, value: str, low: str, high: str) -> dict[str, Any]:
    nothing = float("nan")
    ends = {"value": found[value], "low": found[low], "high": found[high], "n": found.get("n", nothing)}
    return {"run": run.name, "label": label, "model": model, **ends, "null_low": nothing, "null_high": nothing}
