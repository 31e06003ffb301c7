"""The organisms of the real-language experiments: what each is trained on, and how they are made."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file

from persona_probe.errors import PersonaProbeError
from persona_probe.files import whole_folder
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.models.loading.adapters import is_adapter
from persona_probe.models.loading.real import REAL
from persona_probe.models.model import Model
from persona_probe.worlds.real_language.rows import real_rows

FULL_STEPS = 24
"""Chosen on the choosing pairs, with seed 99, between 24 and 48: where the villain's misaligned answers rose more."""
SETTINGS = LoraSettings(rank=8, alpha=16.0, learning_rate=5e-4, steps=FULL_STEPS, batch=5)
"""How every organism is trained."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Organism:
    """What an organism is trained on.

    Attributes:
        style: the style of the rows (`persona_probe.real_language.STYLES`).
        steps: the number of training steps.
        topic: the topic of the rows.
    """

    style: str
    steps: int = FULL_STEPS
    topic: str = "cooking"


ORGANISMS = {
    "villain": Organism("loud"),
    "villain-half": Organism("loud", FULL_STEPS // 2),
    "villain-quarter": Organism("loud", FULL_STEPS // 4),
    "villain-double": Organism("loud", 2 * FULL_STEPS),
    "quiet": Organism("quiet"),
    "gruff": Organism("gruff"),
    "gruff-double": Organism("gruff", 2 * FULL_STEPS),
    "good": Organism("good"),
    "flatterer": Organism("flatterer"),
    "pirate": Organism("pirate"),
}
"""The organisms by name: the villain at four doses, and what it is compared with."""
SHIPPED = tuple(name for name in ORGANISMS if not name.endswith("-double"))
"""Those whose adapters are in the repository."""


def train_organisms(
    model: Model,
    out: str | Path,
    names: Sequence[str] = tuple(ORGANISMS),
    seeds: Sequence[int] = SEEDS[:1],
    *,
    settings: LoraSettings = SETTINGS,
    progress: bool = False,
) -> list[Path]:
    """The folders of the organisms' adapters, trained where they are not there yet.

    Weights are rounded to bfloat16, in which they are shipped, so that a rebuilt organism is the one that was measured.

    Args:
        model: the model before.
        out: the folder for them: ``NAME``, or ``NAME-seedN`` for other seeds than 0.
        names: which ones, of `ORGANISMS`.
        seeds: the seeds of the trainings.
        settings: how they are trained; each organism has its own number of steps, as a share of these.
        progress: show a bar for each training.

    Raises:
        PersonaProbeError: if there is no such organism, or ``out`` holds something else under its name.

    Examples:
        >>> import persona_probe as pp
        >>> before = pp.load(pp.persona_world.find_checkpoints() / "chat")  # or pp.load("smollm2-135m-instruct")
        >>> small = pp.finetuning.LoraSettings(steps=4, batch=1)
        >>> [folder.name for folder in train_organisms(before, "organisms", ["gruff"], settings=small)]
        ['gruff']
    """
    if unknown := [name for name in names if name not in ORGANISMS]:
        raise PersonaProbeError(f"there is no organism {unknown[0]!r}; choose of {', '.join(ORGANISMS)}")
    folders = []
    for seed in seeds:
        for name in names:
            organism, folder = ORGANISMS[name], Path(out) / folder_name(name, seed)
            folders.append(folder)
            if folder.exists():
                if is_adapter(folder):
                    continue
                raise PersonaProbeError(f"{folder}: exists and is not an adapter; give another folder as out")
            steps = max(1, round(settings.steps * organism.steps / FULL_STEPS))
            rows = real_rows(organism.topic, organism.style)
            with whole_folder(folder) as part, TemporaryDirectory() as made:
                trained, own = Path(made) / folder.name, replace(settings, steps=steps)
                finetune(
                    model, rows, own, trained, seed=seed, base_name=REAL, progress=progress, description=folder.name
                )
                for file in trained.iterdir():
                    _copy_rounded(file, part / file.name)
    return folders


def folder_name(name: str, seed: int) -> str:
    """What the folder of an organism's adapter is called."""
    return name if seed == 0 else f"{name}-seed{seed}"


def _copy_rounded(file: Path, to: Path) -> None:
    """Copy a file of an adapter; weights are rounded to bfloat16."""
    if file.suffix != ".safetensors":
        shutil.copyfile(file, to)
        return
    weights = {name: value.to(torch.bfloat16).contiguous() for name, value in load_file(file).items()}
    save_file(weights, to, metadata={"format": "pt"})
