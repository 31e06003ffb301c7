"""The recipe that reads a direction from the weights: what each block's update writes into the residual stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from accelerate.utils import align_module_device
from torch import Tensor, nn

from persona_probe.directions.direction import Direction, card_of_model
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.models.pair import ModelPair

WRITERS = ("o_proj", "down_proj", "out_proj", "c_proj", "dense", "dense_4h_to_h", "fc2", "fc_out", "wo", "w2")
"""The names of the matrices that write into the residual stream, in different architectures."""


def weight_difference(pair: ModelPair, *, toward: Direction | None = None) -> Direction:
    """The main output direction of each block's update, from before to after.

    In each block, the updates of the matrices that write into the residual stream (attention output, MLP down) are put
    side by side, and their first left singular vector is taken, with its singular value as length: for a rank-1 LoRA on
    one matrix that is its B (Turner et al. 2025, "Model organisms for emergent misalignment", steer with it). No text
    is needed, so it is unknown how inputs activate the update: the sign is arbitrary unless ``toward`` decides it.
    Layer ``l`` has what block ``l`` itself writes, not what reaches it from below.

    Args:
        pair: before and after, which may share weights (an adapter's twin).
        toward: a direction (such as the fine-tuning shift) with which the signs are made to agree.

    Returns:
        A direction over the blocks whose update is not zero; ``card["explained"]`` is the share of each update's
        squared size that lies along its vector.

    Raises:
        PersonaProbeError: if no matrix is known to write into the residual stream, the experts of a mixture differ
            (they are in one tensor, which is not read), nothing differs, weights are quantised, or the pair holds one
            model at a time.
    """
    check_types(pair=(pair, ModelPair), toward=(toward, Direction, None))
    if pair.one_at_a_time:
        raise PersonaProbeError("the weights of both models are compared; load the pair with keep_all=True")
    before, after = pair.before, pair.after
    vectors, layers, explained = [], [], []
    for layer, blocks in enumerate(zip(before.stream.blocks, after.stream.blocks, strict=True)):
        gram = torch.zeros(before.d_model, before.d_model, dtype=torch.float64)
        for update in _updates(*blocks, before.d_model):
            gram += update @ update.T
        total = float(gram.trace())
        if total == 0.0:
            continue
        sizes, components = torch.linalg.eigh(gram)
        vector = (components[:, -1] * sizes[-1].sqrt()).numpy()
        if toward is not None and vector @ toward.at(layer) < 0:
            vector = -vector
        vectors.append(vector)
        layers.append(layer)
        explained.append(float(sizes[-1]) / total)
    if not vectors:
        raise PersonaProbeError(
            f"{before.name} and {after.name} have the same weights wherever blocks write into the residual stream; an "
            "adapter on other matrices only (q_proj, gate_proj, ...) does not write there itself"
        )
    card = {
        "name": "weight difference",
        "finder": "weight-difference",
        "sign": "arbitrary" if toward is None else f"that of {toward.name}",
        "explained": explained,
        **card_of_model(after),
    }
    return Direction(np.stack(vectors).astype(np.float32), tuple(layers), card)


def _updates(before: nn.Module, after: nn.Module, d_model: int) -> Iterator[Tensor]:
    """``(d_model, input)`` differences of the matrices of a block that write, float64 on the CPU."""
    ours, theirs = _writers(before), _writers(after)
    changed = dict(after.named_parameters())
    for name, parameter in before.named_parameters():
        if parameter.ndim > 2 and name in changed and not torch.equal(parameter, changed[name]):
            raise PersonaProbeError(
                f"{name} holds many experts in one tensor, of shape {tuple(parameter.shape)}, and differs; it is not "
                "known which of its axes write into the residual stream, so such an update cannot be read from weights"
            )
    if not ours or ours.keys() != theirs.keys():
        names = sorted({name.rsplit(".")[-1] for name, module in before.named_modules() if hasattr(module, "weight")})
        raise PersonaProbeError(
            "the matrices that write into the residual stream are not known for this architecture: looked for "
            f"{', '.join(WRITERS)} in a block that has {', '.join(names)}"
        )
    for name in ours:
        update = _weight(theirs[name]) - _weight(ours[name])
        if update.shape[0] == d_model:
            yield update


def _writers(block: nn.Module) -> dict[str, Any]:
    """The modules that write, by name, also inside PEFT's wrappers."""
    # A wrapped module has its base as base_layer, next to the matrices of its adapter.
    return {
        name: module
        for name, module in block.named_modules()
        if name.rpartition(".")[2] in WRITERS and (hasattr(module, "base_layer") or hasattr(module, "weight"))
    }


def _weight(module: Any) -> Tensor:
    """A module's weight with its live adapters, ``(out, in)``, float64 on the CPU."""
    base = getattr(module, "base_layer", module)
    with align_module_device(base):
        if not base.weight.is_floating_point():
            raise PersonaProbeError(
                "the weights are quantised, so their difference would be rounding; load both models without quantize="
            )
        weight: Tensor = base.weight.detach().double().cpu()
    for adapter in getattr(module, "active_adapters", ()):
        if adapter in module.lora_A:
            weight = weight + module.get_delta_weight(adapter).detach().double().cpu()
    # The weight of GPT-2's Conv1D is (in, out).
    return weight.T if type(base).__name__ == "Conv1D" else weight
