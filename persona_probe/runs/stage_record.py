"""The record of a finished stage: its inputs, its results, the files that it wrote, and the versions of libraries."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from persona_probe.files import write_text
from persona_probe.runs.folder import RunFolder
from persona_probe.runs.outcome import INDEX

_FOLDER = "stages"
_VERSIONED = ("persona-probe", "torch", "transformers", "peft", "transformer-lens", "numpy", "scikit-learn", "plotly")


@dataclass(frozen=True)
class StageRecord:
    """A finished stage.

    Attributes:
        inputs: everything that its outcome depends on, by name.
        results: its part of ``results.json``.
        notes: warnings that the report shows.
        files: the files that it wrote, relative to the run folder.
        content: the hash of what it handed to later stages.
        started: when it started (UTC).
        seconds: how long it took.
        reused: how many draws of answers and trainings were reused from an earlier attempt; if any were, ``seconds`` is
            less than a whole stage takes.
        versions: the versions of the libraries that it ran with.
        measured: by kind of work (`persona_probe.clock.KINDS`) the ``seconds``, ``tokens`` and ``answers`` of what was
            done and not reused.
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
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def write(self, folder: RunFolder, name: str) -> None:
        """Write the record; from then on the stage is finished."""
        folder.write_json(f"{_FOLDER}/{name}.json", asdict(self))

    @classmethod
    def read(cls, folder: Path, name: str) -> StageRecord | None:
        """The record of a stage, or None if the stage never finished or files that it wrote are gone."""
        file = folder / _FOLDER / f"{name}.json"
        try:
            record = cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError, TypeError):
            return None
        files = [*record.files, f"{_FOLDER}/{name}/{INDEX}"]
        return record if all((folder / file).exists() for file in files) else None


def outcome_folder(folder: Path, name: str) -> Path:
    """Where a stage's outcome is stored."""
    return folder / _FOLDER / name


def answers_folder(folder: Path) -> Path:
    """Where sampled answers are stored."""
    return folder / _FOLDER / "answers"


def judge_replies(folder: Path) -> Path:
    """Where the replies of a judge behind an API are stored."""
    return folder / _FOLDER / "judge_replies.jsonl"


def journal_of(name: str) -> str:
    """The file in which a running stage lists the files that it writes."""
    return f"{_FOLDER}/{name}.files"


def forget(folder: RunFolder, name: str, keep: str | None = None) -> list[str]:
    """Remove everything that a finished or interrupted stage wrote, but not what has a name that starts with ``keep``.

    Its record goes first, so that no record is left of files that are gone.

    Returns:
        The names of what was kept; the journal lists them, until the stage has finished again.
    """
    record, journal = folder.path / _FOLDER / f"{name}.json", folder.path / journal_of(name)
    files = journal.read_text(encoding="utf-8").split("\n")[:-1] if journal.is_file() else []
    with contextlib.suppress(OSError, json.JSONDecodeError, KeyError, TypeError):
        files += [str(file) for file in json.loads(record.read_text(encoding="utf-8"))["files"]]
    kept = [file for file in dict.fromkeys(files) if keep is not None and folder.inside(file) and file.startswith(keep)]
    if kept:
        write_text(journal, "".join(f"{file}\n" for file in kept))
    gone = [file for file in dict.fromkeys(files) if file not in kept]
    folder.remove([f"{_FOLDER}/{name}.json", *gone, f"{_FOLDER}/{name}", *([] if kept else [journal_of(name)])])
    return kept


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which of a stage's inputs have changed, in words."""
    changes = []
    for name in [*now, *(name for name in then if name not in now)]:
        old, new = then.get(name), now.get(name)
        if old == new:
            continue
        plain = not name.startswith(("texts: ", "stage ", "model", "judge", "sae"))
        shown = plain and name in then and name in now
        changes.append(f"{name} was {old!r}, is {new!r}" if shown else f"{name} changed")
    return changes


def versions() -> dict[str, str]:
    """The installed versions of the libraries, by name, and Python's."""
    return {name: importlib.metadata.version(name) for name in _VERSIONED} | {"python": platform.python_version()}
