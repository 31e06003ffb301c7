"""The setting of a run: device, shape, rounds, and the model and dialogues that follow from them."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import platform
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import persona_probe as pp
from benchmarks.dialogues import make_dialogues
from benchmarks.random_model import open_model
from benchmarks.shapes import SHAPES, Shape

PACKAGES = ("torch", "transformers", "peft", "transformer-lens", "sae-lens", "nnsight", "persona-probe")


@dataclass(frozen=True)
class Setting:
    """One run.

    Attributes:
        root: a temporary folder for models.
        device: ``cpu`` or ``cuda``.
        shape_name: which of `SHAPES`.
        rounds: how often every variant is timed.
        fresh_processes: whether memory is measured in fresh processes, each of which makes the model again.
    """

    root: str
    device: str
    shape_name: str
    rounds: int
    fresh_processes: bool = True

    @property
    def shape(self) -> Shape:
        return SHAPES[self.shape_name]

    @cached_property
    def model(self) -> pp.Model:
        return open_model(Path(self.root), self.shape, self.device)

    @cached_property
    def dialogues(self) -> list[pp.Dialogue]:
        return make_dialogues(self.shape.dialogues)

    @cached_property
    def some_dialogues(self) -> list[pp.Dialogue]:
        """The fixed random share of the dialogues that the slower peers read."""
        return random.Random(1).sample(self.dialogues, round(self.shape.share * len(self.dialogues)))

    @staticmethod
    def has(package: str) -> bool:
        return importlib.util.find_spec(package) is not None

    def about(self) -> dict[str, Any]:
        """Everything that is needed to understand a figure."""
        return {
            "shape": self.shape_name,
            "model": self.shape.words(),
            "hardware": hardware(self.device),
            "versions": {name: _version(name) for name in PACKAGES},
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        }


def hardware(device: str) -> str:
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    cores = len(_cpu_lines("processor")) or "?"
    name = next(iter(_cpu_lines("model name")), platform.processor() or platform.machine())
    return f"{name}, {cores} cores, {torch.get_num_threads()} torch threads"


def _cpu_lines(key: str) -> list[str]:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == key]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
