"""Training an SAE on a model's own residual stream, or on those of a model before and after fine-tuning."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, PATH, WHOLE, PersonaProbeError, check_types
from persona_probe.latents.encoding.kept_tokens import encode_alike
from persona_probe.latents.loading import load_sae, quiet_sae_lens
from persona_probe.latents.sae import Sae, hook_name
from persona_probe.latents.training.held_out import held_out_fit, split_texts
from persona_probe.latents.training.new_folder import add_to_card, check_out, finished, unfinished
from persona_probe.latents.training.settings import SaeSettings
from persona_probe.latents.training.starting_weights import check_start, continue_from, untrained
from persona_probe.latents.training.token_stream import check_readable, token_batches
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import LAYER_CONVENTION

_NORM_BATCHES = 20
"""Batches over which the mean norm is taken."""
_VERSIONED = ("persona-probe", "sae-lens", "torch", "transformers")


def train_sae(
    models: Model | Sequence[Model],
    dialogues: Sequence[Dialogue],
    layer: int,
    settings: SaeSettings,
    out: str | Path,
    *,
    span: str = "all",
    start: Sae | str | Path | None = None,
    held_out: Sequence[Dialogue] | float = 0.05,
    buffer_tokens: int | None = None,
    command: str | None = None,
    progress: bool = False,
) -> Sae:
    """An SAE, trained with SAELens' trainer and saved in SAELens' format.

    An SAE that is to show what fine-tuning changed must be able to express both models: give both. The folder appears
    when everything is finished; if the trained SAE cannot be measured, it stays in the folder of that name with
    ``.part`` after it. ``cfg.json`` says in ``metadata.persona_probe`` from which models (with fingerprints), tokens
    and settings it was made, and how well it does on held-out texts (`held_out_fit`).

    Args:
        models: whose residual stream is read, tokens mixed evenly; all of the same width.
        dialogues: what the models read.
        layer: whose output.
        settings: how it is trained.
        out: the new folder.
        span: which tokens of each dialogue.
        start: an SAE of that layer and width to continue from (fine-tune) instead of random weights.
        held_out: texts to measure on, or the share of ``dialogues`` that is set aside for it.
        buffer_tokens: how many tokens are held in memory to shuffle them; see `token_batches`.
        command: how this was called, for the record.
        progress: show progress bars.

    Raises:
        PersonaProbeError: if there is no dialogue or model, the layer does not exist, ``start`` does not fit, ``out``
            is not empty, has no name or cannot be created, an activation is not finite, the loss stops being finite,
            or measuring the trained SAE fails (the message says where it is).
    """
    check_types(
        models=(models, Model, [Model]),
        dialogues=(dialogues, [Dialogue]),
        layer=(layer, WHOLE),
        settings=(settings, SaeSettings),
        out=(out, PATH),
        start=(start, Sae, PATH, None),
        held_out=(held_out, NUMBER, [Dialogue]),
    )
    folder = check_out(out)
    readers = [models] if isinstance(models, Model) else list(models)
    check_readable(readers, layer)
    if not dialogues:
        raise PersonaProbeError("there are no dialogues: the list is empty")
    origin = None if start is None else check_start(start, readers[0], layer, settings)
    width = settings.width or (8 * readers[0].d_model if origin is None else origin.width)
    if settings.k > width:
        raise PersonaProbeError(f"k is {settings.k}, more than the SAE's {width} latents; k is how many are active")
    if isinstance(held_out, Sequence):
        train, test = list(dialogues), list(held_out)
    else:
        train, test = split_texts(dialogues, float(held_out), settings.seed)
    encode_alike(readers, test, span)  # refused now rather than after hours
    stream = token_batches(
        readers,
        train,
        layer,
        batch=settings.batch,
        span=span,
        buffer_tokens=buffer_tokens,
        seed=settings.seed,
        progress=progress,
    )
    about = {
        "models": dict(zip(_short_names(readers), [model.fingerprint() for model in readers], strict=True)),
        "layer": int(layer),
        "layer_convention": LAYER_CONVENTION,
        "span": span,
        "tokens": settings.tokens // settings.batch * settings.batch,
        "texts": len(train),
        "seed": settings.seed,
        "settings": {**asdict(settings), "width": width},
        "start": None if origin is None else Path(origin.name).name,
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        "command": command,
    }
    with unfinished(folder) as part, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(settings.seed)
        inner = _trained(stream, readers[0], width, settings, origin, progress)
        _write(inner, part, readers[0], layer, about, test[0])
    with finished(part, folder):
        _measure(part, readers, test, span, progress)
    return load_sae(folder)


def _trained(
    stream: Iterator[Float[Tensor, "token d_model"]],
    model: Model,
    width: int,
    settings: SaeSettings,
    origin: Sae | None,
    progress: bool,
) -> Any:
    """The training SAE after the last step, with the activations' scale in its weights."""
    with quiet_sae_lens():
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.training.sae_trainer import SAETrainer

    device = str(model.device)
    inner = untrained(width, model.d_model, settings, origin, device)
    first = [next(stream) for _ in range(min(_NORM_BATCHES, settings.tokens // settings.batch))]
    scale = math.sqrt(model.d_model) / float(torch.cat(first).norm(dim=1).mean())
    if not math.isfinite(scale):
        raise PersonaProbeError("all activations are zero, so there is nothing to train an SAE on")
    if origin is not None:
        continue_from(inner, origin, scale)
    steps = settings.tokens // settings.batch
    config = SAETrainerConfig(
        total_training_samples=steps * settings.batch,
        train_batch_size_samples=settings.batch,
        lr=settings.learning_rate,
        lr_end=settings.learning_rate,
        lr_warm_up_steps=min(100, steps // 10),
        lr_decay_steps=steps // 4,
        dead_feature_window=settings.dead_after,
        device=device,
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer: Any = SAETrainer(config, inner, stream)
    trainer.activation_scaler.scaling_factor = scale
    with tqdm(total=steps * settings.batch, desc="SAE", unit="tok", unit_scale=True, disable=not progress) as bar:
        for step in range(steps):
            # SAETrainer.fit is this loop with a bar of its own.
            loss = trainer.step(first[step] if step < len(first) else next(stream)).loss.detach()
            trainer.n_training_steps += 1
            if not bool(loss.isfinite()):
                raise PersonaProbeError(
                    f"the loss is {float(loss)} at step {step}: training has diverged; lower learning_rate "
                    f"(now {settings.learning_rate})"
                )
            bar.set_postfix(loss=f"{float(loss):.3f}", refresh=False)
            bar.update(settings.batch)
    inner.fold_activation_norm_scaling_factor(scale)
    return inner


def _write(inner: Any, part: Path, model: Model, layer: int, about: dict[str, Any], example: Dialogue) -> None:
    begin = model.tokenizer.bos_token_id
    metadata = inner.cfg.metadata
    metadata.hook_name, metadata.model_name = hook_name(layer), next(iter(about["models"]))
    metadata.prepend_bos = begin is not None and model.template.encode(example).input_ids[0] == begin
    metadata.persona_probe = about
    inner.save_inference_model(part)


def _measure(part: Path, models: Sequence[Model], test: Sequence[Dialogue], span: str, progress: bool) -> None:
    """Read the SAE as others will, measure it, and write the numbers into its config."""
    sae = load_sae(part, device=str(models[0].device))
    fit = held_out_fit(sae, models, test, span, progress=progress)
    named = dict(zip(_short_names(models), fit["models"], strict=True))
    add_to_card(part, {"held_out": {**fit, "models": named}})


def _short_names(models: Sequence[Model]) -> list[str]:
    """The models' names: Hub ids unchanged, folders by their last part, since a card must not contain local paths."""
    paths = [Path(model.name) for model in models]
    names = [path.name if path.is_absolute() or path.exists() else str(path) for path in paths]
    return [
        name if names.count(name) == 1 else f"{name} ({model.fingerprint()})"
        for name, model in zip(names, models, strict=True)
    ]
