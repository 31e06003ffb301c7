"""Stage 1: narrow fine-tuning, and the matched benign control."""

from __future__ import annotations

from persona_probe.finetuning.lora import LoraSettings, finetune
from persona_probe.study.config import StudyConfig
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


def snapshot_steps(config: StudyConfig) -> list[int]:
    """The training steps after which the narrow adapter is kept too, the last one among them; none without an SAE."""
    count = 0 if config.latents.sae is None else config.latents.snapshots
    return sorted({round(config.training.steps * (i + 1) / count) for i in range(count)} - {0})


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
            snapshots=snapshot_steps(context.config) if name == "after" else (),
        )
