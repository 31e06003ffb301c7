"""Writing edits as a LoRA adapter, since each of them has a low rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from persona_probe.errors import PersonaProbeError, library_message
from persona_probe.models.quiet import quiet_lora_bias
from persona_probe.models.twin import structural_twin
from persona_probe.steering.baking.edits import Edit


def write_adapter(model: PreTrainedModel, edits: Sequence[Edit], folder: Path, base: str) -> None:
    """Write ``edits`` as an adapter for ``model``, which is not changed.

    Args:
        model: the base.
        edits: what the adapter does.
        folder: the folder to write.
        base: the name of the base model in the adapter's config.

    Raises:
        PersonaProbeError: if PEFT cannot put LoRA on one of the modules.
    """
    rank = max(len(edit.down) for edit in edits)
    shifted = [edit.module for edit in edits if edit.bias is not None]
    embedded = [edit.module for edit in edits if isinstance(model.get_submodule(edit.module), nn.Embedding)]
    if shifted and embedded:
        raise PersonaProbeError(
            f"LoRA with biases cannot be put on embeddings ({embedded[0]}), but {shifted[0]} and others have biases; "
            "bake it with form='weights'"
        )
    with quiet_lora_bias():
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            lora_dropout=0.0,
            lora_bias=any(edit.bias is not None for edit in edits),
            target_modules=[edit.module for edit in edits],
            task_type="CAUSAL_LM",
        )
        try:
            tuned: Any = get_peft_model(structural_twin(model), config)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise PersonaProbeError(f"PEFT cannot write this as LoRA: {library_message(error)}") from error
        with torch.no_grad():
            for edit in edits:
                _fill(tuned.get_submodule(f"base_model.model.{edit.module}"), edit)
        tuned.peft_config["default"].base_model_name_or_path = base
        # The base's embedding is not changed, but would be written too if LoRA is put on it.
        tuned.save_pretrained(folder, save_embedding_layers=False)


def _fill(layer: Any, edit: Edit) -> None:
    if "default" in layer.lora_embedding_A:
        pairs = [(layer.lora_embedding_A["default"], edit.down), (layer.lora_embedding_B["default"], edit.up)]
    else:
        up = layer.lora_B["default"]
        pairs = [(layer.lora_A["default"].weight, edit.down), (up.weight, edit.up)]
        if up.bias is not None:
            pairs.append((up.bias, torch.zeros_like(up.bias) if edit.bias is None else edit.bias))
    for parameter, values in pairs:
        parameter.copy_(values.to(parameter.dtype))
