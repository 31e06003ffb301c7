"""The provenance of an exported file, in a JSON file next to it."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.files import plain, write_text
from persona_probe.runs.record import RunRecord


def table_hash(table: pd.DataFrame) -> str:
    """The SHA-256 of a table's columns and cells, which is the same for Parquet and CSV with the same numbers."""
    text = table.to_csv(index=False, lineterminator="\n", float_format="%.12g")
    return hashlib.sha256(text.encode("utf-8", errors="replace")).hexdigest()


def config_hash(run: RunRecord) -> str | None:
    """The SHA-256 of a run's resolved settings; None if it has no manifest."""
    config = run.manifest.get("config")
    if config is None:
        return None
    text = json.dumps(config, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def provenance(
    *,
    figure: str,
    caption: str | None = None,
    run: RunRecord | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """What is known about where a file came from.

    Args:
        figure: the name of what it shows.
        caption: its caption for the paper.
        run: its run.
        tables: the tables from which it was drawn, by name.
        more: further entries.
    """
    known: dict[str, Any] = {
        "figure": figure,
        "caption": caption,
        **more,
        "tables": {name: {"rows": len(table), "sha256": table_hash(table)} for name, table in (tables or {}).items()},
        "persona_probe": importlib.metadata.version("persona-probe"),
        "plotly": importlib.metadata.version("plotly"),
        "date": _now(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    if run is not None:
        known["run"] = _about(run)
    return known


def write_sidecar(path: Path, about: Mapping[str, Any]) -> Path:
    """Write ``about`` next to an exported file, as ``NAME.json`` after its whole name, and return the path."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    content = plain({"file": path.name, "sha256": digest, **about})
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return write_text(path.with_name(path.name + ".json"), text + "\n")


def _about(run: RunRecord) -> dict[str, Any]:
    models = run.manifest.get("models")
    hashes = {
        str(name): {"path": model.get("path"), "hash": model.get("hash")}
        for name, model in (models.items() if isinstance(models, Mapping) else ())
        if isinstance(model, Mapping)
    }
    return {
        "folder": str(run.directory),
        "title": run.results.get("title"),
        "started": run.manifest.get("started"),
        "command": run.manifest.get("command"),
        "config_sha256": config_hash(run),
        "models": hashes,
        "versions": run.manifest.get("versions"),
    }


def _now() -> str:
    """The present time, or the one that a reproducible build sets."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.datetime.now(datetime.UTC)
    if epoch.isdigit():
        moment = datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    return moment.isoformat(timespec="seconds")
