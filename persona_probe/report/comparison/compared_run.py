"""One run among others: its name, and the marks by which runs are told to be comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from persona_probe.report.captions import definition_of
from persona_probe.report.comparison.names import run_names
from persona_probe.report.paper.provenance import config_hash
from persona_probe.report.readings import lookup
from persona_probe.runs.record import RunRecord, read_run


@dataclass(frozen=True)
class ComparedRun:
    """A run with a short name that no other run has."""

    name: str
    record: RunRecord

    @property
    def definition(self) -> str:
        """The EM-rate definition that it reports."""
        return definition_of(self.record)

    @property
    def config_hash(self) -> str | None:
        """Of its resolved settings."""
        return config_hash(self.record)

    @property
    def before_hash(self) -> str | None:
        """Of the weights that it started from."""
        found = lookup(self.record.manifest, "models", "before", "hash")
        return None if found is None else str(found)

    @property
    def template_hash(self) -> str | None:
        """Of the chat template."""
        found = lookup(self.record.manifest, "models", "before", "chat_template_hash")
        return None if found is None else str(found)

    def question_hash(self, questions: str) -> str | None:
        """SHA-256 of the prompts of a set of questions, in any order; None where there is no such answer."""
        answers = self.record.tables.get("answers")
        if answers is None or any(name not in answers for name in ("questions", "prompt")):
            return None
        prompts = sorted(answers.loc[answers["questions"] == questions, "prompt"].astype(str).unique())
        if not prompts:
            return None
        return hashlib.sha256("\n".join(prompts).encode("utf-8", errors="replace")).hexdigest()


def read_runs(folders: Sequence[str | Path]) -> list[ComparedRun]:
    """Read run folders and name them.

    Raises:
        PersonaProbeError: if a run is given twice.
        FileNotFoundError: if a folder holds no finished run.
    """
    names = run_names(folders)
    return [ComparedRun(name, read_run(Path(folder))) for name, folder in zip(names, folders, strict=True)]
