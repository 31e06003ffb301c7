"""Reading a run folder: everything, or a part, of what a study wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.errors import PersonaProbeError

CARDS = "latent_cards.json"
"""A file in the folder of the tables: what single latents stand for (`persona_probe.latents.describe_latents`)."""


@dataclass(frozen=True)
class RunRecord:
    """A finished study: its results, its manifest (empty if there is none), its tables and its latents' cards."""

    directory: Path
    results: Mapping[str, Any]
    manifest: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    latent_cards: Sequence[Mapping[str, Any]] = ()

    @property
    def judge(self) -> str | None:
        """The name of the judge of the answers, or None if no judge could read them."""
        name = self.results.get("judge")
        return None if name is None else str(name)


def read_run(directory: Path) -> RunRecord:
    """The record in a run folder.

    Raises:
        PersonaProbeError: if the folder does not contain ``results.json``, or a file in it is damaged or holds
            something else; the file is named.
    """
    results = directory / "results.json"
    if not results.is_file():
        raise PersonaProbeError(
            f"{directory} holds no results.json, so it is not a finished study; run the study first"
        )
    manifest = directory / "manifest.json"
    names = {path.stem for suffix in ("parquet", "csv") for path in (directory / "tables").glob(f"*.{suffix}")}
    tables = {name: table for name in sorted(names) if (table := _table(directory / "tables", name)) is not None}
    about = _object(manifest) if manifest.is_file() else {}
    return RunRecord(directory, _object(results), about, tables, _cards(directory / "tables" / CARDS))


def _object(path: Path) -> Mapping[str, Any]:
    content = _json(path)
    if not isinstance(content, Mapping):
        raise PersonaProbeError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def _cards(path: Path) -> Sequence[Mapping[str, Any]]:
    if not path.is_file():
        return ()
    cards = _json(path)
    if not isinstance(cards, list) or not all(isinstance(card, Mapping) and "latent" in card for card in cards):
        raise PersonaProbeError(f"{path} must hold a list of JSON objects, each with a 'latent'")
    return cards


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PersonaProbeError(f"{path} is not valid JSON: {error}") from error


def _table(folder: Path, name: str) -> pd.DataFrame | None:
    parquet, csv = folder / f"{name}.parquet", folder / f"{name}.csv"
    file = parquet if parquet.is_file() else csv
    try:
        return pd.read_parquet(file) if file is parquet else pd.read_csv(file)
    except pd.errors.EmptyDataError:
        return None
    except (OSError, ValueError) as error:
        raise PersonaProbeError(f"{file} is damaged and cannot be read: {error}") from error
