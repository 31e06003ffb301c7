"""A short code that identifies a model's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

_SAMPLED_VALUES = 2048
_SUMMED_AT_ONCE = 2**22
_COMPILED = "_orig_mod."
"""What ``torch.compile(module)`` adds to the names of a module's parameters, which are the same weights."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(hf: nn.Module) -> str:
    """Sixteen hex digits that change with the weights.

    A hash of every parameter's name, shape and dtype, the sum of its bits and a few thousand of its values. It is the
    same on every device, includes adapter weights, and is fast enough to be computed at every capture. A live adapter
    that is switched off, or scaled otherwise than its config says, gives another fingerprint.
    """
    pieces, tied_once = {}, {name for name, _ in hf.named_parameters()}
    for prefix, module in hf.named_modules():
        with align_module_device(module):  # brings offloaded weights in, one module at a time
            for name, parameter in module.named_parameters(prefix, recurse=False):
                if name not in tied_once:
                    continue
                values: Tensor = parameter.detach().reshape(-1)
                step = max(1, values.numel() // _SAMPLED_VALUES)
                name = name.replace(_COMPILED, "")
                label = f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode()
                # In pieces, since the sum makes a 64-bit copy, which takes gigabytes for a large embedding.
                parts = torch.split(values.view(_BITS[values.element_size()]), _SUMMED_AT_ONCE)
                bits = torch.stack([part.sum(dtype=torch.int64) for part in parts]).sum()
                sample = values[::step].float().cpu().numpy().tobytes()
                pieces[name] = label + int(bits).to_bytes(8, "little", signed=True) + sample
    digest = hashlib.sha256()
    for name in sorted(pieces):
        digest.update(pieces[name])
    digest.update("".join(_unusual(hf)).encode())
    return digest.hexdigest()[:16]


def _unusual(hf: nn.Module) -> Iterator[str]:
    """How each adapted layer deviates from using all of its adapters with the scale of their configs."""
    for name, layer in hf.named_modules():
        known, scaling = getattr(layer, "r", None), getattr(layer, "scaling", None)
        if not hasattr(layer, "disable_adapters") or not isinstance(known, dict) or not isinstance(scaling, dict):
            continue
        module: Any = layer
        if module.disable_adapters or set(module.active_adapters) != set(known):
            yield f"{name} off: {module.disable_adapters}, active: {sorted(module.active_adapters)};"
        for adapter, scale in sorted(scaling.items()):
            rank = module.r[adapter]
            usual = module.lora_alpha[adapter] / (rank**0.5 if module.use_rslora.get(adapter, False) else rank)
            if abs(scale - usual) > 1e-6 * abs(usual):
                yield f"{name} {adapter}: {scale:.6g};"
