"""Reading a model's residual stream over dialogues, reduced inside the hook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from einops import einsum
from torch import Tensor
from tqdm.auto import tqdm

from persona_probe.activations.activations import Activations
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.rendering import Encoded, check_span, encode_all
from persona_probe.errors import PersonaProbeError
from persona_probe.models.boundary import Boundary
from persona_probe.models.layer_convention import LAYER_CONVENTION
from persona_probe.models.model import Model
from persona_probe.models.residual_stream import resolve_layers

Reduce = Literal["mean", "last", "max"]
REDUCTIONS: tuple[str, ...] = get_args(Reduce)


def capture(
    model: Model,
    dialogues: Sequence[Dialogue],
    span: str = "generation",
    reduce: str = "mean",
    layers: int | Sequence[int] | str = "all",
    *,
    tokens_per_batch: int = 16_384,
    progress: bool = False,
) -> Activations:
    """Run ``dialogues`` through ``model`` and keep one vector a dialogue and layer.

    Only the backbone runs: no logits are made. Dialogues are sorted by length and batched by tokens, padded on the
    right under an attention mask. If the model is being steered, the steered stream is what is read.

    Args:
        model: which model reads.
        dialogues: what it reads; for the spans ``response`` and ``generation`` each must end with an answer.
        span: which tokens (`persona_probe.dialogue.rendering.SPANS`).
        reduce: how the span's tokens become one vector: ``mean``, ``last`` or ``max``.
        layers: ``"all"``, one or several.
        tokens_per_batch: padded tokens a forward.
        progress: show a bar.

    Returns:
        Activations with values ``(dialogue, layer, d_model)``, in the order of ``dialogues``.

    Raises:
        PersonaProbeError: for an unknown span, reduction or layer, an empty span (naming the dialogue), or
            activations that are not finite.
    """
    wanted = resolve_layers(layers, model.n_layers)
    kind = check_span(span)
    if reduce not in REDUCTIONS:
        raise PersonaProbeError(f"unknown reduction {reduce!r}: choose one of {', '.join(REDUCTIONS)}")
    encoded = encode_all(model.tokenizer, dialogues)
    spans = [item.span(kind) for item in encoded]
    values = np.empty((len(encoded), len(wanted), model.d_model), dtype=np.float32)
    with tqdm(total=len(encoded), desc="capture", unit="dialogue", disable=not progress, leave=False) as bar:
        for rows in _batches(encoded, tokens_per_batch):
            items = [encoded[row] for row in rows]
            batch = model.tokenizer.pad(
                {"input_ids": [list(item.input_ids) for item in items]}, return_tensors="pt", padding_side="right"
            ).to(model.device)
            inside = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
            for i, row in enumerate(rows):
                inside[i, spans[row]] = True
            reduced: dict[int, Tensor] = {}

            def read(layer: int, hidden: Tensor, inside: Tensor = inside, reduced: dict[int, Tensor] = reduced) -> None:
                reduced[layer] = _reduce(hidden, inside.to(hidden.device), reduce).cpu()

            with (
                torch.inference_mode(),
                model.at_boundary(Boundary.of_dialogues(items)),
                model.stream.reading(read, wanted),
            ):
                model.stream.backbone(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
                )
            for column, layer in enumerate(wanted):
                values[rows, column] = reduced[layer].numpy()
            bar.update(len(rows))
    table = pd.DataFrame(
        [
            {
                **item.dialogue.labels,
                "id": item.dialogue.id,
                "question": item.dialogue.question,
                "group": item.dialogue.group,
                "seed": item.dialogue.seed,
                "n_tokens": place.stop - place.start,
            }
            for item, place in zip(encoded, spans, strict=True)
        ]
    )
    source = {
        "model": model.name,
        "model_hash": model.fingerprint(),
        "template_hash": model.template_hash(),
        "span": span,
        "reduce": reduce,
        "layer_convention": LAYER_CONVENTION,
    }
    return Activations(values, table, tuple(wanted), source)


def _reduce(hidden: Tensor, inside: Tensor, reduce: str) -> Tensor:
    """Reduce ``(batch, position, d_model)`` over the positions that are ``inside`` to ``(batch, d_model)``, float32."""
    if reduce == "last":
        last = inside.shape[1] - 1 - inside.flip(1).int().argmax(dim=1)
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), last].float()
    if reduce == "max":
        return hidden.float().masked_fill(~inside[..., None], -torch.inf).amax(dim=1)
    weights = inside.float() / inside.sum(dim=1, keepdim=True)
    return einsum(hidden.float(), weights, "batch position d, batch position -> batch d")


def _batches(encoded: Sequence[Encoded], tokens_per_batch: int) -> Iterator[list[int]]:
    """Row numbers, longest dialogues first, so many together that padding included they hold the token budget."""
    order = sorted(range(len(encoded)), key=lambda row: -len(encoded[row].input_ids))
    start = 0
    while start < len(order):
        size = max(1, tokens_per_batch // len(encoded[order[start]].input_ids))
        yield order[start : start + size]
        start += size
