"""Sentences on why runs cannot be compared, or only with care."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from persona_probe.amplification.verdict import Finding
from persona_probe.figures.em_rates import QUESTIONS, called
from persona_probe.report.comparison.compared_run import ComparedRun
from persona_probe.report.reading import lookup

SHORT = 12
"""How many characters of a hash are shown."""


def rate_obstacles(runs: Sequence[ComparedRun]) -> list[str]:
    """Why the EM rates of these runs cannot be compared; empty if they can."""
    sentences = [
        _differs(runs, "the EM-rate definition", lambda run: run.definition),
        _differs(runs, "the judge", lambda run: run.record.judge or "none"),
    ]
    sentences += [
        _differs(
            [run for run in runs if run.question_hash(kind) is not None],
            f"the {called(kind, 'reported')} questions (by their hash)",
            lambda run, kind=kind: str(run.question_hash(kind))[:SHORT],  # type: ignore[misc]
        )
        for kind in QUESTIONS[:2]
    ]
    sentences += [
        f"{run.name} has no answers, so it is not known whether it asked the same questions."
        for run in runs
        if all(run.question_hash(kind) is None for kind in QUESTIONS)
    ]
    sentences += [
        f"{run.name} measured preference and no EM rate, so it is not among these numbers."
        for run in runs
        if run.record.judge is None and not run.record.tables.get("preference", pd.DataFrame()).empty
    ]
    return [sentence for sentence in sentences if sentence]


def shift_obstacles(runs: Sequence[ComparedRun]) -> list[str]:
    """Why the shifts of these runs cannot be compared, and which runs report none; empty if they can."""
    return model_obstacles(runs) + [
        f"{run.name} is not among these numbers: its direction has {verdict}."
        for run in runs
        if lookup(run.record.results, "amplification", "finding") == Finding.NO_DIRECTION.value
        and isinstance(verdict := lookup(run.record.results, "amplification", "verdict"), str)
    ]


def model_obstacles(runs: Sequence[ComparedRun]) -> list[str]:
    """Why the shifts and directions of these runs cannot be compared; empty if they can."""
    sentences = [
        _differs(runs, "the model before (by its weights' hash)", lambda run: (run.before_hash or "unknown")[:SHORT]),
        _differs(runs, "the chat template (by its hash)", lambda run: (run.template_hash or "unknown")[:SHORT]),
    ]
    sentences += [
        f"{run.name} has no manifest with the hash of its model, so it is not known which model it used."
        for run in runs
        if run.before_hash is None
    ]
    return [sentence for sentence in sentences if sentence]


def _differs(runs: Sequence[ComparedRun], what: str, of: Callable[[ComparedRun], str]) -> str | None:
    values: dict[str, list[str]] = {}
    for run in runs:
        values.setdefault(of(run), []).append(run.name)
    if len(values) < 2:
        return None
    differences = "; ".join(f"{value}: {', '.join(names)}" for value, names in values.items())
    return f"Runs differ in {what}: {differences}."
