"""A table of the settings in which runs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from persona_probe.figures.text import NOTHING
from persona_probe.report.comparison.compared_run import ComparedRun
from persona_probe.report.comparison.obstacles import SHORT
from persona_probe.report.data_table import DataTable
from persona_probe.report.facts import facts_of
from persona_probe.report.reading import lookup

_ABSENT = object()


def differing_settings(runs: Sequence[ComparedRun]) -> DataTable:
    """One row per setting that is not the same in all runs, with a dash if a run has no such setting."""
    flat = [_flattened(run.record.manifest.get("config")) for run in runs]
    names = dict.fromkeys(name for settings in flat for name in settings)
    rows = []
    for name in names:
        values = [settings.get(name, _ABSENT) for settings in flat]
        if any(value != values[0] for value in values[1:]):
            rows.append([name, *(NOTHING if value is _ABSENT else _written(value) for value in values)])
    caption = f"Settings that differ: {len(rows)} of {len(names)}."
    return DataTable(caption, ["setting", *(run.name for run in runs)], rows, folded=False)


def identities(runs: Sequence[ComparedRun]) -> DataTable:
    """What each run is: its title, models, hashes, judge and versions."""

    def row(name: str, of: Any) -> list[str]:
        return [name, *(NOTHING if (value := of(run)) is None else str(value) for run in runs)]

    def model(run: ComparedRun, kind: str) -> str | None:
        value = lookup(run.record.manifest, "models", kind, "hash")
        return None if value is None else str(value)[:SHORT]

    rows = [
        row("title", lambda run: run.record.results.get("title")),
        row("about", lambda run: run.record.results.get("subtitle")),
        row("folder", lambda run: run.record.directory),
        row("started", lambda run: run.record.manifest.get("started")),
        row("judge", lambda run: run.record.judge),
        row("reported questions", lambda run: facts_of(run.record).on_asked.removeprefix("on ")),
        row("after", lambda run: _origin(run, "after")),
        row("control", lambda run: _origin(run, "control")),
        row("fine-tuning runs", lambda run: facts_of(run.record).n_runs),
        row("definition", lambda run: run.definition),
        row("settings, hash", lambda run: run.config_hash and run.config_hash[:SHORT]),
        row("before, hash", lambda run: model(run, "before")),
        row("after, hash", lambda run: model(run, "after")),
        row("control, hash", lambda run: model(run, "control")),
        row("reported questions, hash", lambda run: (run.question_hash("unseen topics") or NOTHING)[:SHORT]),
        row("open questions, hash", lambda run: (run.question_hash("open") or NOTHING)[:SHORT]),
        row("persona-probe", lambda run: lookup(run.record.manifest, "versions", "persona-probe")),
    ]
    return DataTable("What was run.", ["", *(run.name for run in runs)], rows, folded=False)


def _origin(run: ComparedRun, kind: str) -> str | None:
    """Whether a model was fine-tuned in the run, or which model the run names; None if that is not recorded."""
    facts = facts_of(run.record)
    if kind == "control" and not facts.control:
        return "none"
    given = facts.after if kind == "after" else facts.control_given
    if given is not None:
        return given
    return "fine-tuned in the run" if facts.recorded else None


def _flattened(value: object, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value} if prefix else {}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flattened(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
