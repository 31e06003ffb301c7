"""The folder that a study writes: no file in it is half-written under its final name."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.errors import PersonaProbeError
from persona_probe.files import whole_file, write_json, write_text
from persona_probe.result import Result

OBJECTS = "objects"
"""The folder of the result objects, from which `persona_probe.open_run` reads them."""
OURS = (
    "adapters",
    "directions",
    "tables",
    OBJECTS,
    "stages",
    "study.yaml",
    "results.json",
    "manifest.json",
    "report.html",
)
"""What a study writes; a folder that holds anything else is not overwritten."""
CLOSING = ("results.json", "manifest.json", "report.html")
"""What is written when all stages are finished, and removed when a stage has to run again."""


class RunFolder:
    """Writes tables, JSON and other files, and remembers what it wrote.

    Attributes:
        path: the folder.
        written: everything that was written since `begin`, relative to ``path``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.written: list[str] = []
        self._journal: Path | None = None

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run folder at ``path``, which need not exist yet.

        Raises:
            PersonaProbeError: if it is a file, or contains something that no study wrote.
        """
        folder = Path(path)
        if folder.exists() and not folder.is_dir():
            raise PersonaProbeError(f"{folder}: is a file; give a folder for the results")
        entries = folder.iterdir() if folder.is_dir() else ()
        # File managers and notebooks leave files whose names start with a dot in every folder.
        strangers = sorted(entry.name for entry in entries if entry.name not in OURS and entry.name[0] != ".")
        if strangers:
            raise PersonaProbeError(
                f"{folder}: contains {strangers[0]!r}, which no study wrote; give a new folder, so that nothing is lost"
            )
        return cls(folder)

    def begin(self, journal: str | None = None) -> None:
        """Start a new list of written files, and go on with ``journal``, a file by which stopped stages are removed."""
        self.written, self._journal = [], None if journal is None else self.path / journal
        if self._journal is not None:
            self._journal.parent.mkdir(parents=True, exist_ok=True)
            self._journal.touch()

    def place(self, name: str) -> Path:
        """The path for something that its own code writes; the name is remembered as written."""
        path = self.inside(name)
        self.written.append(name)
        if self._journal is not None:
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_table(self, name: str, table: pd.DataFrame | Result) -> None:
        """Write ``tables/NAME.parquet`` and ``.csv``."""
        table = table.to_frame() if isinstance(table, Result) else table
        for suffix in ("parquet", "csv"):
            with whole_file(self.place(f"tables/{name}.{suffix}")) as part:
                if suffix == "parquet":
                    table.to_parquet(part, index=False)
                else:
                    table.to_csv(part, index=False)

    def write_json(self, name: str, content: Any) -> Path:
        """Write ``NAME`` as JSON; NaN and infinities become null."""
        return write_json(self.place(name), content)

    def write_text(self, name: str, content: str) -> Path:
        """Write ``NAME`` as text."""
        return write_text(self.place(name), content)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files and folders, where they exist."""
        for name in names:
            path = self.inside(name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def inside(self, name: str) -> Path:
        """The path of ``name``; the names in a run folder that somebody else made may point outside it.

        Raises:
            PersonaProbeError: if it does.
        """
        path = self.path / name
        root = self.path.resolve()
        if not path.parent.resolve().is_relative_to(root) or path.resolve(strict=False) == root:
            raise PersonaProbeError(f"{self.path}: {name!r} lies outside the run folder, so nothing is done to it")
        return path
