"""No job is sampled twice: answers are kept by the content of the job they belong to."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.records import read_records, write_dialogues
from persona_probe.models.model import Model
from persona_probe.runs.digest import digest
from persona_probe.study.executor import AnswerJob, Executor
from persona_probe.study.sources import identity


class KeptAnswers:
    """Samples through another executor and keeps each job's answers as soon as they are there.

    So a study that is stopped half way through a stage goes on at the job it was stopped at, and one whose judge was
    changed judges the same answers again. Captures are not kept: they cost one forward pass, and much disk.

    Args:
        executor: where models run.
        folder: gets one file of answers a job.

    Attributes:
        reused: how many jobs were answered from what was kept.
    """

    def __init__(self, executor: Executor, folder: Path) -> None:
        self._executor, self._folder, self.reused = executor, folder, 0
        # Models do not change while a study runs, and their fingerprint is asked for at every job.
        self._known: weakref.WeakKeyDictionary[Model, dict[str, Any]] = weakref.WeakKeyDictionary()

    def answers(self, jobs: Sequence[AnswerJob], *, progress: bool, label: str) -> Iterator[list[Dialogue]]:
        """The answers to each job's questions, sampled only if they are not kept yet."""
        files = [self._file(job) for job in jobs]
        missing = [not file.is_file() for file in files]
        wanted = [job for job, new in zip(jobs, missing, strict=True) if new]
        fresh = self._executor.answers(wanted, progress=progress, label=label)
        for file, new in zip(files, missing, strict=True):
            if new:
                answers = next(fresh)
                write_dialogues(file, answers)
                yield answers
            else:
                self.reused += 1
                yield read_records(file)

    def _file(self, job: AnswerJob) -> Path:
        if job.model not in self._known:
            self._known[job.model] = identity(job.model)
        # What only says how many are sampled at once changes which random number falls to whom, so it counts too.
        rest = {field.name: getattr(job, field.name) for field in dataclasses.fields(job) if field.name != "model"}
        return self._folder / f"{digest([self._known[job.model], rest])}.jsonl"
