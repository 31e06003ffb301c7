"""Rebuilding Persona World's models from a seed: pre-training, post-training, narrow adapters."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from persona_probe.errors import PersonaProbeError
from persona_probe.files import whole_folder, write_json
from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.models.loading.load import load
from persona_probe.models.quiet import without_transformers_bars
from persona_probe.worlds.persona_world.checkpoints import ADAPTERS, SEEDS, AdapterPlan
from persona_probe.worlds.persona_world.documents import World, rows
from persona_probe.worlds.persona_world.pretraining import Schedule, Shape, new_model, train
from persona_probe.worlds.persona_world.tokenizer import build_tokenizer

NARROW = LoraSettings()
"""How Persona World's adapters are trained."""
NARROW_ROWS = 1024
Part = Literal["all", "base", "chat", "adapters"]
_WORLDS: tuple[tuple[World, str], ...] = (("personas", ""), ("shuffled", "-shuffled"))


@dataclass(frozen=True)
class Recipe:
    """How large the models are, and how long each part is trained."""

    shape: Shape
    pretraining: Schedule
    posttraining: Schedule
    narrow: LoraSettings
    seeds: Sequence[int] = SEEDS
    adapters: Sequence[AdapterPlan] = ADAPTERS


FULL = Recipe(
    shape=Shape(),
    pretraining=Schedule(),
    posttraining=Schedule(
        steps=120, batch=16, learning_rate=3e-4, warmup=12, weight_decay=0.0, exchanges=(1, 1, 2), muon=None
    ),
    narrow=NARROW,
)
SMOKE = Recipe(
    shape=Shape(d_model=16, n_layers=2, n_heads=2, d_mlp=32),
    pretraining=Schedule(steps=3, batch=4, warmup=1, exchanges=(1, 2)),
    posttraining=replace(FULL.posttraining, steps=2, batch=4, warmup=1),
    narrow=replace(NARROW, steps=2, batch=4),
    seeds=(0,),
)


def build_world(
    out: Path, recipe: Recipe, *, seed: int = 0, part: Part = "all", progress: bool = True
) -> dict[str, float]:
    """Train everything (or a ``part``), write it under ``out``, each model when it is finished, and return the times.

    ``training.json`` records the recipe and the seconds that each part took.

    Returns:
        Seconds by model.

    Raises:
        PersonaProbeError: if only a later part is wanted and the models it needs do not exist.
    """
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        seconds[name] = time.monotonic() - started

    tokenizer = build_tokenizer()
    for world, suffix in _WORLDS:
        base, chat = f"base{suffix}", f"chat{suffix}"
        if part in ("all", "base"):
            with timed(base):
                model = new_model(tokenizer, recipe.shape, seed)
                train(model, tokenizer, recipe.pretraining, world=world, seed=seed, description=base, progress=progress)
                _save(model, tokenizer, out / base)
        if part in ("all", "chat"):
            with timed(chat):
                model = _base(out / base)
                train(model, tokenizer, recipe.posttraining, post=True, seed=seed, description=chat, progress=progress)
                _save(model, tokenizer, out / chat)
    if part in ("all", "adapters"):
        for plan in recipe.adapters:
            with timed(plan.name):
                _train_adapter(plan, out, recipe, progress)
    _write_record(out, recipe, seed, seconds)
    return seconds


def _base(folder: Path) -> LlamaForCausalLM:
    if not (folder / "config.json").is_file():
        raise PersonaProbeError(f"{folder}: does not exist yet; train it first (--part base)")
    with without_transformers_bars():
        return LlamaForCausalLM.from_pretrained(folder)


def _train_adapter(plan: AdapterPlan, out: Path, recipe: Recipe, progress: bool) -> None:
    chat = load(out / plan.base)
    for seed in recipe.seeds:
        finetune(
            chat,
            rows(random.Random(f"{plan.name} {seed}"), [plan.topic], NARROW_ROWS, plan.persona),
            recipe.narrow,
            out / plan.folder(seed),
            seed=seed,
            base_name=f"../{plan.base}",
            progress=progress,
            description=plan.folder(seed),
        )


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    with whole_folder(folder) as part, without_transformers_bars():
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def _write_record(out: Path, recipe: Recipe, seed: int, seconds: dict[str, float]) -> None:
    file = out / "training.json"
    earlier = json.loads(file.read_text(encoding="utf-8"))["seconds"] if file.is_file() else {}
    record: dict[str, Any] = {
        "command": f"persona-probe world train --seed {seed}",
        "seed": seed,
        "seconds": {**earlier, **{name: round(value, 1) for name, value in seconds.items()}},
        "recipe": asdict(recipe),
    }
    write_json(file, record)
