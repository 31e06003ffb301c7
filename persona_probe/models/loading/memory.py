"""How much memory a model's weights take, computed from its config, and how much memory is free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch
from transformers import PretrainedConfig

from persona_probe.errors import PersonaProbeError, library_message
from persona_probe.models.loading.load import auto_class, resolve_dtype, target_device
from persona_probe.models.loading.sources import check_source, read_config
from persona_probe.models.loading.spec import LoadOptions, ModelSpec

_BITS = {"4bit": 4.5, "8bit": 8.25}
"""Bits per quantised weight, with its scales (bitsandbytes, blocks of 64 and rows); embeddings are not quantised."""


@dataclass(frozen=True)
class Footprint:
    """A model's size, known without reading its weights.

    Attributes:
        parameters: number of parameters.
        weight_bytes: memory of the weights as they will be loaded.
        n_layers: number of blocks.
        d_model: width of the residual stream.
        dtype: the dtype that the weights will be loaded in.
    """

    parameters: int
    weight_bytes: int
    n_layers: int
    d_model: int
    dtype: torch.dtype


def footprint(spec: ModelSpec) -> Footprint:
    """The size of the model that ``spec`` names, from its config; an adapter's own few weights are not counted.

    Raises:
        PersonaProbeError: if there is no config, or it is not that of a causal language model.
    """
    check_source(spec.source)
    options = spec.options
    try:
        config = read_config(spec.source, options)
        with torch.device("meta"):
            model = auto_class(config).from_config(
                config, trust_remote_code=options.get("trust_remote_code", False), attn_implementation="eager"
            )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise PersonaProbeError(
            f"{spec.source}: its size cannot be found from its config: {library_message(error)}"
        ) from error
    text = config.get_text_config()
    wanted = resolve_dtype(options.get("dtype"), target_device(options))
    dtype = wanted if isinstance(wanted, torch.dtype) else (config.dtype or torch.float32)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    embedded = sum(size.numel() for size in {id(end.weight): end.weight for end in ends if end is not None}.values())
    bits = _BITS.get(options.get("quantize") or _already(config), 8 * dtype.itemsize)
    return Footprint(
        parameters=parameters,
        weight_bytes=int((parameters - embedded) * bits / 8 + embedded * dtype.itemsize),
        n_layers=text.num_hidden_layers,
        d_model=text.hidden_size,
        dtype=dtype,
    )


def _already(config: PretrainedConfig) -> str:
    """How bitsandbytes quantised the weights in the repository; empty if it did not."""
    stored = getattr(config, "quantization_config", None) or {}
    settings = stored if isinstance(stored, dict) else vars(stored)
    return next((bits for bits in _BITS if settings.get(f"load_in_{bits}")), "")


def free_bytes(options: LoadOptions) -> int:
    """The free memory that ``options`` give a model: of all GPUs with a ``device_map``, of one GPU, or of the RAM."""
    device = target_device(options)
    if device.type == "cuda":
        several = options.get("device_map") is not None
        devices = range(torch.cuda.device_count()) if several else [device]
        return sum(torch.cuda.mem_get_info(one)[0] for one in devices)
    return int(psutil.virtual_memory().available)


def all_fit(specs: Sequence[ModelSpec]) -> bool:
    """Whether the weights of all models fit into nine tenths of the free memory (the rest is for activations)."""
    needed = sum(footprint(spec).weight_bytes for spec in specs)
    return needed <= 0.9 * free_bytes(specs[0].options)
