"""Stage 1: narrow fine-tuning, and the matched benign control."""

from __future__ import annotations

from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.study.context import Context


def settings(context: Context) -> LoraSettings:
    """The study's LoRA settings."""
    training = context.config.training
    return LoraSettings(
        rank=training.rank,
        alpha=training.alpha,
        learning_rate=training.learning_rate,
        steps=training.steps,
        batch=training.batch,
        target_modules=training.target_modules,
    )


def train(context: Context) -> None:
    """Fine-tune ``after`` on the narrow rows and ``control`` on the benign ones: same settings, same seed."""
    for name, rows in (("after", context.material.narrow), ("control", context.material.control)):
        context.models[name] = finetune(
            context.before,
            rows,
            settings(context),
            context.folder.path / "adapters" / name,
            seed=context.config.seed,
            progress=context.progress,
            description=f"fine-tuning {name}",
        )
