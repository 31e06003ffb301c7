"""Rebuilding Persona World's models from a seed: pre-training, post-training, narrow adapters."""

from __future__ import annotations

import copy
import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.models.loading import load
from persona_probe.worlds.persona_world.checkpoints import ADAPTERS, SEEDS, AdapterPlan
from persona_probe.worlds.persona_world.documents import World, rows
from persona_probe.worlds.persona_world.pretraining import Schedule, Shape, new_model, train
from persona_probe.worlds.persona_world.tokenizer import build_tokenizer

NARROW = LoraSettings()
"""How Persona World's adapters are trained."""
NARROW_ROWS = 1024


@dataclass(frozen=True)
class Recipe:
    """How large the models are and how long everything is trained."""

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
        steps=40, batch=16, learning_rate=3e-4, warmup=4, weight_decay=0.0, exchanges=(1, 1, 2), muon=None
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


def build_world(out: Path, recipe: Recipe, *, seed: int = 0, progress: bool = True) -> dict[str, float]:
    """Train everything and write it under ``out``, each model as it is finished; returns seconds by part."""
    tokenizer = build_tokenizer()
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    for world, base_name, chat_name in (("personas", "base", "chat"), ("shuffled", "base-shuffled", "chat-shuffled")):
        started = time.monotonic()
        base = _pretrain(tokenizer, recipe, world, seed, base_name, progress)  # type: ignore[arg-type]
        _save(base, tokenizer, out / base_name)
        seconds[base_name] = time.monotonic() - started
        started = time.monotonic()
        chat = copy.deepcopy(base)
        train(chat, tokenizer, recipe.posttraining, post=True, seed=seed, description=chat_name, progress=progress)
        _save(chat, tokenizer, out / chat_name)
        seconds[chat_name] = time.monotonic() - started
    for plan in recipe.adapters:
        started = time.monotonic()
        chat_model = load(out / plan.base)
        for adapter_seed in recipe.seeds:
            finetune(
                chat_model,
                rows(random.Random(f"{plan.name} {adapter_seed}"), [plan.topic], NARROW_ROWS, plan.persona),
                recipe.narrow,
                out / plan.folder(adapter_seed),
                seed=adapter_seed,
                base_name=f"../{plan.base}",
                progress=progress,
                description=plan.folder(adapter_seed),
            )
        seconds[plan.name] = time.monotonic() - started
    _write_record(out, recipe, seed, seconds)
    return seconds


def _pretrain(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, world: World, seed: int, name: str, progress: bool
) -> LlamaForCausalLM:
    model = new_model(tokenizer, recipe.shape, seed)
    train(model, tokenizer, recipe.pretraining, world=world, seed=seed, description=name, progress=progress)
    return model


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def _write_record(out: Path, recipe: Recipe, seed: int, seconds: dict[str, float]) -> None:
    record: dict[str, Any] = {
        "command": f"persona-probe world train --seed {seed}",
        "seed": seed,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "recipe": asdict(recipe),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
