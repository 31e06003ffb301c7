"""Stage 2: the further fine-tuning runs of ``after`` and ``control``, over which amplification is tested."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.runs.config import StudyConfig, n_runs, sources_of
from persona_probe.study.context import Context
from persona_probe.study.sources import stamp
from persona_probe.study.stage import Stage
from persona_probe.study.stages.train import (
    ADAPTERS,
    Tuned,
    compared,
    fine_tuning,
    training_work,
    tune,
    tuned_run,
)
from persona_probe.study.workload import Sizes, Work


def train_further(context: Context, first: Tuned) -> list[Tuned]:
    """Fine-tune ``after`` and ``control`` again with other seeds, or open the further models that the study names.

    One of these models is in memory at a time.

    Raises:
        PersonaProbeError: if two runs have the same weights.
    """
    runs = [first]
    for run in range(1, n_runs(context.config)):
        hashes = {name: _hash(context, name, run) for name in compared(context)}
        tuned = tuned_run(context.config, run, hashes)
        for name in hashes:
            _check_new(runs, tuned, name)
        runs.append(tuned)
    context.results["fine_tuning"] = fine_tuning(runs)
    return runs[1:]


@contextmanager
def briefly(model: Model) -> Iterator[Model]:
    """The model, whose memory is free again when the block ends, whatever still refers to it."""
    try:
        yield model
    finally:
        model.release("the runs of a study are in memory one after another")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _hash(context: Context, name: str, run: int) -> str:
    with briefly(tune(context, name, run)) as model:
        return model.fingerprint()


def _check_new(runs: Sequence[Tuned], tuned: Tuned, name: str) -> None:
    """Raise if a model has the weights of an earlier run: a copy would count as another run that agrees with it."""
    for earlier in runs:
        if earlier.hashes[name] == tuned.hashes[name]:
            raise PersonaProbeError(
                f"{tuned.sources[name]}: has the same weights as {earlier.sources[name]}, so it is not another run of "
                f"{name!r}; leave it out, or train it with another seed"
            )


def _has_further_runs(config: StudyConfig) -> bool:
    return n_runs(config) > 1


def _files(config: StudyConfig) -> dict[str, Any]:
    """The state of the further models' files: that they changed must be seen without loading them in every study."""
    named = {name: sources_of(getattr(config, name))[1:] for name in ("after", "control")}
    return {f"models of {name}": [stamp(source, None) for source in sources] for name, sources in named.items()}


def _work(sizes: Sizes) -> Work:
    return training_work(sizes, n_runs(sizes.config) - 1)


FURTHER = Stage(
    "further-runs",
    train_further,
    work=_work,
    settings=("after", "control", "seed", "training"),
    derived=_files,
    material=("narrow", "control"),
    needs=("fine-tune",),
    applies=_has_further_runs,
    keeps=f"{ADAPTERS}/",
)
