"""What is written of a finished stage: what it rested on, what it found, which files it left, with which versions."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persona_probe.runs.folder import RunFolder
from persona_probe.runs.outcome import INDEX

_FOLDER = "stages"
_VERSIONED = ("persona-probe", "torch", "transformers", "peft", "transformer-lens", "numpy", "scikit-learn", "plotly")


@dataclass(frozen=True)
class StageRecord:
    """A finished stage.

    Attributes:
        inputs: what it rested on, by name.
        results: its part of ``results.json``.
        notes: what the report says to bear in mind.
        files: what it wrote, relative to the run folder.
        content: hash of what it handed to later stages.
        started: when, UTC.
        seconds: how long it took.
        reused: draws of answers that were kept from before, so that ``seconds`` is not what the stage takes.
        versions: of the libraries that it ran with.
    """

    inputs: Mapping[str, Any]
    results: Mapping[str, Any]
    notes: Sequence[str]
    files: Sequence[str]
    content: str
    started: str
    seconds: float
    reused: int
    versions: Mapping[str, str]

    def write(self, folder: RunFolder, name: str) -> None:
        """Write it; from then on the stage is finished."""
        folder.write_json(f"{_FOLDER}/{name}.json", asdict(self))

    @classmethod
    def read(cls, folder: Path, name: str) -> StageRecord | None:
        """What was written of the stage, or None if it never finished or files that it wrote are gone."""
        file = folder / _FOLDER / f"{name}.json"
        try:
            record = cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, TypeError):
            return None
        there = [*record.files, f"{_FOLDER}/{name}/{INDEX}"]
        return record if all((folder / kept).exists() for kept in there) else None


def outcome_folder(folder: Path, name: str) -> Path:
    """Where a stage's outcome is kept."""
    return folder / _FOLDER / name


def answers_folder(folder: Path) -> Path:
    """Where sampled answers are kept."""
    return folder / _FOLDER / "answers"


def journal_of(name: str) -> str:
    """The file in which a stage that is running writes what it writes."""
    return f"{_FOLDER}/{name}.files"


def forget(folder: RunFolder, name: str) -> None:
    """Take away what a stage left, also one that was cut off; its record first, so that none speaks of what is gone."""
    record, journal = folder.path / _FOLDER / f"{name}.json", folder.path / journal_of(name)
    left = journal.read_text(encoding="utf-8").split("\n")[:-1] if journal.is_file() else []
    with contextlib.suppress(OSError, json.JSONDecodeError, KeyError, TypeError):
        left += [str(file) for file in json.loads(record.read_text(encoding="utf-8"))["files"]]
    folder.remove([f"{_FOLDER}/{name}.json"])
    folder.remove([*dict.fromkeys(left), f"{_FOLDER}/{name}", journal_of(name)])


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what of a stage's inputs has changed."""
    said = []
    for name in [*now, *(name for name in then if name not in now)]:
        old, new = then.get(name), now.get(name)
        if old == new:
            continue
        plain = not name.startswith(("texts: ", "stage ", "model", "judge", "sae"))
        said.append(f"{name} was {old!r}, is {new!r}" if plain and name in then and name in now else f"{name} changed")
    return said


def versions() -> dict[str, str]:
    """Installed versions by name, Python's among them."""
    return {name: importlib.metadata.version(name) for name in _VERSIONED} | {"python": platform.python_version()}
