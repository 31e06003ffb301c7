"""One of several runs: a short name, and the hashes that show whether runs are comparable."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from persona_probe.errors import PersonaProbeError
from persona_probe.report.paper.provenance import config_hash
from persona_probe.report.reading import definition_of, lookup
from persona_probe.runs.record import RunRecord, read_run


@dataclass(frozen=True)
class ComparedRun:
    """A run with a short, unique name."""

    name: str
    record: RunRecord

    @property
    def definition(self) -> str:
        """The EM-rate definition that the run reports."""
        return definition_of(self.record)

    @property
    def config_hash(self) -> str | None:
        """The hash of its resolved settings."""
        return config_hash(self.record)

    @property
    def before_hash(self) -> str | None:
        """The hash of the weights of its model before."""
        return self._of_before("hash")

    @property
    def template_hash(self) -> str | None:
        """The hash of the chat template of its model before."""
        return self._of_before("chat_template_hash")

    def _of_before(self, key: str) -> str | None:
        value = lookup(self.record.manifest, "models", "before", key)
        return None if value is None else str(value)

    def question_hash(self, questions: str) -> str | None:
        """The SHA-256 of the prompts of a set of questions, in any order; None if the run has no such answers."""
        answers = self.record.tables.get("answers")
        if answers is None or any(name not in answers for name in ("questions", "prompt")):
            return None
        prompts = sorted(answers.loc[answers["questions"] == questions, "prompt"].astype(str).unique())
        if not prompts:
            return None
        return hashlib.sha256("\n".join(prompts).encode("utf-8", errors="replace")).hexdigest()


def read_runs(folders: Sequence[str | Path]) -> list[ComparedRun]:
    """The runs in some folders, with their names.

    Raises:
        PersonaProbeError: if a run is given twice.
        PersonaProbeError: if a folder does not hold a finished run.
    """
    names = run_names(folders)
    return [ComparedRun(name, read_run(Path(folder))) for name, folder in zip(names, folders, strict=True)]


def run_names(folders: Sequence[str | Path]) -> list[str]:
    """A name for each run: that of its folder, with as many folders above as are needed to make it unique.

    Raises:
        PersonaProbeError: if a run is given twice.
    """
    paths = [Path(folder).resolve() for folder in folders]
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise PersonaProbeError(f"{folders[index]}: is given twice; give different runs")
    deepest = max(len(path.parts) for path in paths)
    for depth in range(1, deepest + 1):
        names = [re.sub(r"[^\w.-]+", "_", "-".join(path.parts[-depth:])).strip("_.-") or "run" for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"run-{number}" for number in range(1, len(paths) + 1)]
