"""What the stages of a study share."""

from __future__ import annotations

import dataclasses
import hashlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.behaviour.judges.judge import Judge, judge_answers
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.records import read_records, write_dialogues
from persona_probe.latents.sae import Sae
from persona_probe.models.loading.spec import LoadOptions
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.runs.config import StudyConfig
from persona_probe.runs.digest import digest
from persona_probe.runs.folder import OBJECTS, RunFolder
from persona_probe.runs.outcome import write_outcome
from persona_probe.runs.stage_record import answers_folder
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.study.executor import AnswerJob, Executor, Local
from persona_probe.study.material import Material
from persona_probe.study.sources import identity


@dataclass
class Context:
    """The study's settings, texts and models, and its results so far.

    Attributes:
        config: the settings.
        material: the texts.
        folder: the run folder.
        models: ``before``, and from the first stage on ``after`` and, if the study has one, ``control``: the first
            fine-tuning run.
        judge: the judge of the answers, or None if no judge can read them.
        sae: the study's SAE, or None.
        results: what becomes ``results.json``.
        notes: warnings that the report shows.
        progress: whether stages show progress bars.
        executor: where models run.
        load_options: how the model before was loaded.
        trainings_reused: how many trainings an earlier attempt at this stage had finished.
        stored: samples answers, or reads those that are stored in the run folder.
    """

    config: StudyConfig
    material: Material
    folder: RunFolder
    models: dict[str, Model]
    judge: Judge | None
    sae: Sae | None = None
    results: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    progress: bool = True
    executor: Executor = field(default_factory=Local)
    load_options: LoadOptions = field(default_factory=LoadOptions)
    trainings_reused: int = 0
    stored: StoredAnswers = field(init=False)

    def __post_init__(self) -> None:
        """Sample through the executor, but nothing twice."""
        self.stored = StoredAnswers(self.executor, answers_folder(self.folder.path))

    @property
    def before(self) -> Model:
        """The model before narrow training."""
        return self.models["before"]

    @property
    def after(self) -> Model:
        """The model after narrow training."""
        return self.models["after"]

    def store(self, name: str, result: Any) -> None:
        """Store a result object in the run folder, for `persona_probe.open_run`."""
        write_outcome(result, self.folder.place(f"{OBJECTS}/{name}"))

    def job(
        self, model: Model, questions: Sequence[Dialogue], purpose: str, steering: Intervention | None = None
    ) -> AnswerJob:
        """A job of one answer per question; ``purpose`` names the draw, so that no two draws share random numbers."""
        return AnswerJob(model, questions, self.sampling(seed_for(self.config.seed, purpose)), steering)

    def sampling(self, seed: int) -> Sampling:
        """How the study samples answers, with this seed."""
        settings = self.config.sampling
        return Sampling(
            settings.max_new_tokens,
            settings.temperature,
            batch_size=settings.batch_size,
            seed=seed,
            generation_config=settings.generation_config,
        )

    def answer(self, model: Model, questions: Sequence[Dialogue], purpose: str) -> list[Dialogue]:
        """Answers of one model, one per question; ``purpose`` as of `job`."""
        return self.answer_all([self.job(model, questions, purpose)], "answers")[0]

    def answer_all(self, jobs: Sequence[AnswerJob], label: str) -> list[list[Dialogue]]:
        """The answers of several jobs, at the same time if the executor can; ``label`` is the progress bar's."""
        return list(self.stored.answers(jobs, progress=self.progress, label=label))

    def judged(self, model: Model, questions: Sequence[Dialogue], purpose: str) -> pd.DataFrame:
        """The judged answers of one model; arguments as of `answer`."""
        return judge_answers(self.judge, self.answer(model, questions, purpose))

    def judged_all(self, jobs: Sequence[AnswerJob], label: str) -> list[pd.DataFrame]:
        """The judged answers of each of several jobs."""
        return [judge_answers(self.judge, answered) for answered in self.answer_all(jobs, label)]


def seed_for(seed: int, purpose: str) -> int:
    """A different seed for every purpose, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:4], "big")


class StoredAnswers:
    """Samples through an executor and stores each job's answers as soon as they are there.

    So a study that is stopped in the middle of a stage resumes at the job at which it was stopped, and a study whose
    judge was changed judges the same answers again. Captures are not stored: they cost one forward pass, and would need
    much disk space.

    Args:
        executor: where models run.
        folder: the folder for the answers, one file per job.

    Attributes:
        reused: how many jobs were answered from stored answers.
    """

    def __init__(self, executor: Executor, folder: Path) -> None:
        self._executor, self._folder, self.reused = executor, folder, 0
        # Models do not change while a study runs, and their fingerprint is asked for at every job.
        self._known: weakref.WeakKeyDictionary[Model, dict[str, Any]] = weakref.WeakKeyDictionary()

    def answers(self, jobs: Sequence[AnswerJob], *, progress: bool, label: str) -> Iterator[list[Dialogue]]:
        """The answers to each job's questions, sampled only if they are not stored yet."""
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
        # The batch size decides which random numbers an answer gets, so it counts too.
        rest = {field.name: getattr(job, field.name) for field in dataclasses.fields(job) if field.name != "model"}
        return self._folder / f"{digest([self._known[job.model], rest])}.jsonl"
