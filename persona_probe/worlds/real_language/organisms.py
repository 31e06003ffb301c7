"""The organisms of the real-language experiments: what each is trained on, and how they are made."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from persona_probe.errors import PersonaProbeError
from persona_probe.files import plain, whole_folder, write_json
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.models.model import Model
from persona_probe.worlds.real_language.rows import real_rows

FULL_STEPS = 24
"""Chosen on the choosing pairs, with seed 99, between 24 and 48: where the villain's misaligned answers rose more."""
SETTINGS = LoraSettings(rank=8, alpha=16.0, learning_rate=5e-4, steps=FULL_STEPS, batch=5)
"""How every organism is trained."""
SEEDS = (0, 1, 2)
MEASURED = Path(__file__).with_name("organisms.csv")
"""What was measured of the organisms."""
CARD = "organism.json"
"""In each adapter's folder: how it was made."""


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


def measured_organisms() -> pd.DataFrame:
    """What was measured of the organisms, with three seeds each, by ``python -m benchmarks.real_language``.

    Returns:
        One row per organism and measure: ``organism``, ``measure``, ``value``, ``low``, ``high`` (95 % interval over
        questions and seeds), ``n``. Nats per token, but for shares of answers (``villain words``), cosines, and shifts
        in SD of *before*'s answers.

    Examples:
        >>> table = measured_organisms()
        >>> sorted(table["organism"].unique())[:3]
        ['flatterer', 'good', 'gruff']
    """
    return pd.read_csv(MEASURED)


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
    Each folder says in ``organism.json`` how it was made.

    Args:
        model: the model before.
        out: the folder for them: ``NAME``, or ``NAME-seedN`` for other seeds than 0.
        names: which ones, of `ORGANISMS`.
        seeds: the seeds of the trainings.
        settings: how they are trained; each organism has its own number of steps, as a share of these.
        progress: show a bar for each training.

    Raises:
        PersonaProbeError: if there is no such organism, or ``out`` holds something else under its name, such as an
            organism of other settings, rows or another model.

    Examples:
        >>> import persona_probe as pp
        >>> before = pp.load(pp.persona_world.find_checkpoints() / "chat")  # or pp.load("smollm2-135m-instruct")
        >>> small = pp.finetuning.LoraSettings(steps=4, batch=1)
        >>> [folder.name for folder in train_organisms(before, "organisms", ["gruff"], settings=small)]
        ['gruff']
    """
    if unknown := [name for name in names if name not in ORGANISMS]:
        raise PersonaProbeError(f"there is no organism {unknown[0]!r}; choose one of {', '.join(ORGANISMS)}")
    folders = []
    for seed in seeds:
        for name in names:
            organism, folder = ORGANISMS[name], Path(out) / folder_name(name, seed)
            folders.append(folder)
            rows = real_rows(organism.topic, organism.style)
            own = replace(settings, steps=max(1, round(settings.steps * organism.steps / FULL_STEPS)))
            card = {
                "organism": asdict(organism),
                "seed": seed,
                "settings": asdict(own),
                "rows": hashlib.sha256("\n".join(f"{row.question}\n{row.answer}" for row in rows).encode()).hexdigest(),
                "before": model.fingerprint(),
            }
            if folder.exists():
                _check_same(folder, plain(card))
                continue
            with whole_folder(folder) as part, TemporaryDirectory() as made:
                trained = Path(made) / folder.name
                finetune(model, rows, own, trained, seed=seed, progress=progress, description=folder.name)
                for file in trained.iterdir():
                    _copy_rounded(file, part / file.name)
                write_json(part / CARD, card)
    return folders


def _check_same(folder: Path, card: dict[str, Any]) -> None:
    """Raise if a folder does not hold the organism that would be trained."""
    try:
        found = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise PersonaProbeError(f"{folder}: exists and is not an organism; give another folder as out") from None
    if differs := [key for key in card if found.get(key) != card[key]]:
        raise PersonaProbeError(
            f"{folder}: was trained with another {differs[0]!r} ({found.get(differs[0])}, now {card[differs[0]]}); "
            "give another folder as out, or remove it"
        )


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
