"""How much memory weights take, known from the config alone, and how much is free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch
from transformers import AutoConfig, PretrainedConfig

from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading.load import auto_class, check_source, hub_arguments, resolve_dtype, target_device
from persona_probe.models.loading.spec import LoadOptions, ModelSpec

_BITS = {"4bit": 4.5, "8bit": 8.25}
"""Bits a quantised weight takes, scales included (bitsandbytes, blocks of 64 and rows); embeddings keep theirs."""


@dataclass(frozen=True)
class Footprint:
    """A model's size, without its weights having been read.

    Attributes:
        parameters: how many.
        weight_bytes: what the weights take in memory as they will be loaded.
        n_layers: number of blocks.
        d_model: width of the residual stream.
        dtype: they will be loaded in.
    """

    parameters: int
    weight_bytes: int
    n_layers: int
    d_model: int
    dtype: torch.dtype


def footprint(spec: ModelSpec) -> Footprint:
    """The size of what ``spec`` names, from its config; an adapter's own few weights are left out.

    Raises:
        PersonaProbeError: if there is no config, or no causal language model of that kind.
    """
    check_source(spec.source)
    options = spec.options
    try:
        config = AutoConfig.from_pretrained(spec.source, **hub_arguments(options))
        with torch.device("meta"):
            model = auto_class(config).from_config(
                config, trust_remote_code=options.get("trust_remote_code", False), attn_implementation="eager"
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise PersonaProbeError(
            f"{spec.source}: its size cannot be found from its config: {str(error).splitlines()[0]}"
        ) from error
    text = config.get_text_config()
    wanted = resolve_dtype(options.get("dtype"), target_device(options))
    dtype = wanted if isinstance(wanted, torch.dtype) else (config.dtype or torch.float32)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    kept = sum(size.numel() for size in {id(end.weight): end.weight for end in ends if end is not None}.values())
    bits = _BITS.get(options.get("quantize") or _already(config), 8 * dtype.itemsize)
    return Footprint(
        parameters=parameters,
        weight_bytes=int((parameters - kept) * bits / 8 + kept * dtype.itemsize),
        n_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        dtype=dtype,
    )


def _already(config: PretrainedConfig) -> str:
    """How the repository's own weights are quantised, if by bitsandbytes."""
    stored = getattr(config, "quantization_config", None) or {}
    settings = stored if isinstance(stored, dict) else vars(stored)
    return next((bits for bits in _BITS if settings.get(f"load_in_{bits}")), "")


def free_bytes(options: LoadOptions) -> int:
    """Memory that is free where models with ``options`` go: all GPUs under a ``device_map``, one GPU, or the RAM."""
    device = target_device(options)
    if device.type == "cuda":
        several = options.get("device_map") is not None
        devices = range(torch.cuda.device_count()) if several else [device]
        return sum(torch.cuda.mem_get_info(one)[0] for one in devices)
    return int(psutil.virtual_memory().available)


def all_fit(specs: Sequence[ModelSpec]) -> bool:
    """Whether the models' weights fit together in nine tenths of what is free (the rest is for activations)."""
    needed = sum(footprint(spec).weight_bytes for spec in specs)
    return needed <= 0.9 * free_bytes(specs[0].options)
