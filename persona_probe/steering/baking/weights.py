"""Writing edits into a model's weights, in an architecture that loads all of them again."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel

from persona_probe.errors import PersonaProbeError
from persona_probe.steering.baking.edits import Edit

_LLAMA_SHAPED = ("mistral", "qwen2")
"""Model types that compute the same as Llama, except for sliding windows. Others may differ only at lengths that no
short comparison reaches (Ministral 3 scales late queries), so that having the same shape is not enough."""

_ROWS = 4096


def edited(model: PreTrainedModel, edits: Sequence[Edit]) -> PreTrainedModel:
    """``model`` with the edits, changed in place, or its edited weights in an architecture that has the biases.

    Raises:
        PersonaProbeError: if a bias is needed that the architecture lacks, and no other architecture is exact.
    """
    lacking = [edit.module for edit in edits if edit.bias is not None and _bias_of(model, edit.module) is None]
    target = _with_biases(model, lacking) if lacking else model
    if any(edit.moves_weight for edit in edits):
        _untie(target)
    with torch.no_grad():
        for edit in edits:
            module: Any = target.get_submodule(edit.module)
            if edit.moves_weight:
                rows, columns = (edit.up, edit.down) if isinstance(module, nn.Linear) else (edit.down.T, edit.up.T)
                # A few rows at a time, since in float64 an embedding would take several times the model's memory.
                for part, change in zip(module.weight.split(_ROWS), rows.split(_ROWS), strict=True):
                    part.copy_((part.double() + change @ columns).to(part.dtype))
            if edit.bias is not None:
                module.bias.copy_((module.bias.double() + edit.bias).to(module.bias.dtype))
    return target


def _bias_of(model: nn.Module, name: str) -> nn.Parameter | None:
    return getattr(model.get_submodule(name), "bias", None)


def _untie(model: PreTrainedModel) -> None:
    """Give the head its own matrix, since it reads the stream and must stay as it was."""
    ends: Any = model
    head, embedding = ends.get_output_embeddings(), ends.get_input_embeddings()
    if head is not None and head.weight is embedding.weight:
        head.weight = nn.Parameter(embedding.weight.detach().clone())
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


def _with_biases(model: PreTrainedModel, names: Sequence[str]) -> PreTrainedModel:
    """``model``'s weights in an architecture where the layers called ``names`` have a bias."""
    candidates: list[tuple[type[PreTrainedModel], PretrainedConfig]] = []
    text = model.config.get_text_config()
    for switch in [key for key, value in text.to_dict().items() if "bias" in key and value is False]:
        config = copy.deepcopy(model.config)
        setattr(config.get_text_config(), switch, True)
        candidates.append((type(model), config))
    if model.config.model_type in _LLAMA_SHAPED and not _slides(model.config):
        candidates.append((LlamaForCausalLM, _as_llama(model.config)))
    for kind, config in candidates:
        moved = _moved(model, kind, config, names)
        if moved is not None:
            return moved
    window = " (with its sliding window it cannot be written as Llama)" if _slides(model.config) else ""
    raise PersonaProbeError(
        f"{type(model).__name__} has no bias at {names[0]} and no setting for one{window}: a bias that is saved there "
        "is dropped when the folder is loaded; bake it with form='lora'"
    )


def _slides(config: PretrainedConfig) -> bool:
    """Whether attention has a window that is shorter than the texts that the model was made for."""
    window = getattr(config, "sliding_window", None)
    limit = getattr(config, "max_position_embeddings", None)
    return window is not None and (limit is None or window < limit)


def _as_llama(config: PretrainedConfig) -> LlamaConfig:
    given = config.to_dict()
    settings = {key: given[key] for key in LlamaConfig().to_dict() if given.get(key) is not None}
    for key in ("model_type", "architectures", "transformers_version"):
        settings.pop(key, None)
    return LlamaConfig(**{**settings, "attention_bias": True, "mlp_bias": True})


def _moved(
    model: PreTrainedModel, kind: type[PreTrainedModel], config: PretrainedConfig, names: Sequence[str]
) -> PreTrainedModel | None:
    """The weights in a model of ``kind``, whose additional biases are zero; None if anything else differs."""
    with torch.device("meta"):
        shell: Any = kind(config)
    held, wanted = model.state_dict(), shell.state_dict()
    new = [key for key in wanted if key not in held]
    same = all(key in wanted and wanted[key].shape == tensor.shape for key, tensor in held.items())
    if not same or not {f"{name}.bias" for name in names} <= set(new) or not all(key.endswith(".bias") for key in new):
        return None
    like = next(model.parameters())
    zeros = {key: torch.zeros(wanted[key].shape, dtype=like.dtype, device=like.device) for key in new}
    shell.load_state_dict({**held, **zeros}, assign=True)
    shell.config.dtype = like.dtype
    shell.generation_config = model.generation_config
    shell.tie_weights()
    shell.eval()
    return cast(PreTrainedModel, shell)
