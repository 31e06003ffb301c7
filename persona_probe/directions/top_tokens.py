"""The tokens that a direction promotes and suppresses: its logit lens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate.utils import align_module_device
from jaxtyping import Float
from torch import Tensor, nn

from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.stream.guards import probe_ids

_ROWS_AT_ONCE = 2**14
"""Rows of the unembedding that are converted to float32 at once: all of them would take gigabytes."""


def top_tokens(
    model: Model,
    vectors: Float[np.ndarray, "layer d_model"],
    layers: Sequence[int],
    *,
    k: int = 10,
    center: bool = True,
) -> pd.DataFrame:
    """The tokens whose logits each vector raises and lowers most, read directly through the unembedding.

    The logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens") applied to a direction, as to parameters by
    Dar et al. 2023 ("Analyzing transformers in embedding space"): the unit vector, centred if the final norm is a
    LayerNorm, times the final norm's gain, times the unembedding. The norm's division by the stream's length is left
    out: it depends on the stream, and does not change the ranking. This shows what a direction adds to the output
    *directly*; it does not show what later layers make of it, and so what an early direction means.

    Args:
        model: any causal language model with an output embedding as wide as its residual stream.
        vectors: ``(layer, d_model)``, one row per layer (or per latent of an SAE); their lengths do not matter.
        layers: the number of each row, for the table.
        k: tokens per side.
        center: subtract the mean over the vocabulary, so that 0 is the average token. The ranking does not change.

    Returns:
        One row per layer, side and rank: ``layer``, ``rank`` (1 is the strongest), ``side`` (``promoted`` or
        ``suppressed``), ``token``, ``token_id``, ``logit`` (per unit of the vector's length, before the norm's
        division) and ``final_norm`` (false where the model's final norm was not found, and its gain left out).

    Raises:
        PersonaProbeError: if ``k`` is below 1, there is no row, widths differ, or the model has no output embedding
            that can be read.
    """
    if k < 1 or not len(layers):
        raise PersonaProbeError(
            f"k={k}, layers={tuple(layers)}: there is nothing to show; k and layers must be at least one"
        )
    if vectors.shape[1] != model.d_model:
        raise PersonaProbeError(
            f"the direction has d_model={vectors.shape[1]}, {model.name} {model.d_model}: it belongs to another model"
        )
    units = torch.tensor(vectors, dtype=torch.float32)
    units = units / units.norm(dim=1, keepdim=True)
    norm = final_norm(model)
    if norm is not None:
        units = _through(norm, units, model)
    logits = _unembedded(units, model)
    if center:
        logits = logits - logits.mean(dim=1, keepdim=True)
    rows = []
    for layer, line in zip(layers, logits, strict=True):
        for side, largest in (("promoted", True), ("suppressed", False)):
            best = torch.topk(line, min(k, len(line)), largest=largest)
            for rank, (logit, token_id) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True), 1):
                token = model.tokenizer.decode([token_id])
                rows.append((layer, rank, side, token, token_id, logit, norm is not None))
    return pd.DataFrame(rows, columns=["layer", "rank", "side", "token", "token_id", "logit", "final_norm"])


def final_norm(model: Model) -> nn.Module | None:
    """The norm between the last block and the unembedding, or None if there is none, or more than one candidate.

    It is found by running the model: the child of the backbone with one weight per channel that is called after the
    last block.
    """
    called: list[nn.Module] = []
    handles = [model.stream.blocks[-1].register_forward_hook(lambda *_: called.clear())]
    for child in model.stream.backbone.children():
        weight = getattr(child, "weight", None)
        if isinstance(weight, Tensor) and tuple(weight.shape) == (model.d_model,):
            handles.append(child.register_forward_hook(lambda module, *_: called.append(module)))
    try:
        with torch.inference_mode(), model.running():
            model.hf(input_ids=probe_ids(model))
    finally:
        for handle in handles:
            handle.remove()
    return called[0] if len(called) == 1 else None


def _through(norm: nn.Module, vectors: Tensor, model: Model) -> Tensor:
    """``vectors`` times the norm's gain, centred over d_model if the norm centres.

    The gain is measured by calling the norm, since some norms store it less one (Gemma): alternating +1 and -1 have
    mean 0 and length sqrt(d_model), so that the norm returns +-gain, plus a bias that the difference removes.
    """
    weight: Any = norm.weight
    device = model.device if weight.device.type == "meta" else weight.device
    signs = torch.ones(1, 1, model.d_model, dtype=weight.dtype, device=device)
    gain: Tensor
    with torch.inference_mode():
        flat = (norm(signs) - norm(-signs)).float().cpu()[0, 0]
        signs[..., 1::2] = -1
        gain = ((norm(signs) - norm(-signs)) / (2 * signs)).float().cpu()[0, 0]
    centres = bool((flat.abs() <= 1e-3 * gain.abs().max()).all())
    centred = vectors - vectors.mean(dim=1, keepdim=True) if centres else vectors
    return centred * gain


def _unembedded(vectors: Tensor, model: Model) -> Tensor:
    """Logits ``(layer, token)`` of the tokenizer's tokens, float32, on the CPU."""
    plain: Any = model.plain
    head = plain.get_output_embeddings()
    if head is None:
        raise PersonaProbeError(f"{model.name}: {type(plain).__name__} has no output embedding to read through")
    with align_module_device(head), torch.inference_mode():
        weight: Any = head.weight
        if weight.ndim != 2 or weight.shape[1] != model.d_model or not weight.is_floating_point():
            raise PersonaProbeError(
                f"{model.name}: its output embedding is {tuple(weight.shape)} of {weight.dtype}, and needs to be "
                f"(vocabulary, {model.d_model}) in floating point; quantised heads, and heads behind a projection, "
                "cannot be read through"
            )
        # Embeddings are often padded beyond the tokenizer; those rows are not tokens.
        tokens = weight[: len(model.tokenizer)]
        placed = vectors.to(weight.device)
        return torch.cat([(placed @ part.float().T).cpu() for part in tokens.split(_ROWS_AT_ONCE)], dim=1)
