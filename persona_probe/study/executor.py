"""Where a study's models run: in this process, or wherever else an executor takes the work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict, Unpack

from tqdm.auto import tqdm

from persona_probe.activations.activations import Activations
from persona_probe.activations.capturing import capture, capture_together
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.steer_context import steer


class CaptureOptions(TypedDict, total=False):
    """The keyword arguments of `persona_probe.capture` that leave `Activations`."""

    span: str
    reduce: Literal["mean", "last", "max", "tokens"]
    layers: int | Sequence[int] | str
    tokens_per_batch: int | None
    sink_ratio: float | None


@dataclass(frozen=True)
class AnswerJob:
    """Questions that are answered together; everything but the model can be pickled.

    Attributes:
        model: the model that answers.
        questions: the questions; each gets one answer.
        sampling: how the answers are sampled.
        steering: the intervention under which the model answers, or None.
    """

    model: Model
    questions: Sequence[Dialogue]
    sampling: Sampling
    steering: Intervention | None = None

    def run(self, *, progress: bool = False) -> list[Dialogue]:
        """The answers, sampled in this process."""
        steered = contextlib.nullcontext() if self.steering is None else steer(self.model, self.steering)
        with steered:
            return self.model.generate(self.questions, self.sampling, progress=progress)


class Executor(Protocol):
    """Runs models on texts."""

    def answers(self, jobs: Sequence[AnswerJob], *, progress: bool, label: str) -> Iterator[list[Dialogue]]:
        """The answers to each job's questions, in the order of ``jobs``, each as soon as it is there."""
        ...

    def capture(
        self, model: Model, dialogues: Sequence[Dialogue], *, progress: bool = False, **options: Unpack[CaptureOptions]
    ) -> Activations:
        """As `persona_probe.capture`."""
        ...

    def capture_together(
        self,
        models: Sequence[Model],
        dialogues: Sequence[Dialogue],
        *,
        progress: bool = False,
        **options: Unpack[CaptureOptions],
    ) -> list[Activations]:
        """As `persona_probe.activations.capture_together`."""
        ...


class Local:
    """Runs everything in this process, one thing after the other."""

    def answers(self, jobs: Sequence[AnswerJob], *, progress: bool, label: str) -> Iterator[list[Dialogue]]:
        """The answers to each job's questions; a single job shows only its own progress bar."""
        for job in tqdm(jobs, desc=label, disable=not progress or len(jobs) == 1, leave=False):
            yield job.run(progress=progress)

    def capture(
        self, model: Model, dialogues: Sequence[Dialogue], *, progress: bool = False, **options: Unpack[CaptureOptions]
    ) -> Activations:
        """As `persona_probe.capture`."""
        return capture(model, dialogues, progress=progress, **options)

    def capture_together(
        self,
        models: Sequence[Model],
        dialogues: Sequence[Dialogue],
        *,
        progress: bool = False,
        **options: Unpack[CaptureOptions],
    ) -> list[Activations]:
        """As `persona_probe.activations.capture_together`."""
        return capture_together(models, dialogues, progress=progress, **options)
