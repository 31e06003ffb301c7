"""Reading a run folder: what a study left behind, whole or in part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

TABLES = (
    "em_rates",
    "persona_shares",
    "answers",
    "direction_cosines",
    "amplification",
    "finders",
    "finder_cosines",
    "probe",
    "probe_same_words",
    "steering",
    "realignment",
)


@dataclass(frozen=True)
class RunRecord:
    """A finished study: its results, its manifest (empty if none was left) and the tables it has."""

    directory: Path
    results: Mapping[str, Any]
    manifest: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]

    @property
    def judge(self) -> str | None:
        """Who judged the answers; None when no judge applies."""
        name = self.results.get("judge")
        return None if name is None else str(name)


def read_run(directory: Path) -> RunRecord:
    """Read a run folder.

    Raises:
        FileNotFoundError: if the folder holds no ``results.json``.
        ValueError: if a JSON file in it is no JSON object; the file is named.
    """
    results = directory / "results.json"
    if not results.is_file():
        raise FileNotFoundError(f"{directory} holds no results.json, so it is no finished study; run the study first")
    manifest = directory / "manifest.json"
    tables = {name: table for name in TABLES if (table := _table(directory / "tables", name)) is not None}
    return RunRecord(directory, _object(results), _object(manifest) if manifest.is_file() else {}, tables)


def _object(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(found, Mapping):
        raise ValueError(f"{path} must hold a JSON object, not {type(found).__name__}")
    return found


def _table(folder: Path, name: str) -> pd.DataFrame | None:
    parquet, csv = folder / f"{name}.parquet", folder / f"{name}.csv"
    if parquet.is_file():
        return pd.read_parquet(parquet)
    if not csv.is_file():
        return None
    try:
        return pd.read_csv(csv)
    except pd.errors.EmptyDataError:
        return None
