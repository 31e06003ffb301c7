"""Dialogues as padded batches that are made beforehand, for peers whose time does not include making them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import persona_probe as pp
from persona_probe.activations.batching import batches, tokens_per_batch_for


@dataclass(frozen=True)
class Batch:
    """Some dialogues, padded on the right.

    Attributes:
        rows: the numbers of the dialogues.
        ids, mask: the inputs of the model, (row, position).
        weights: 1/n on the n tokens of the response, else 0.
    """

    rows: list[int]
    ids: Tensor
    mask: Tensor
    weights: Tensor

    def means(self, hidden: Tensor) -> Tensor:
        """The mean over the response of ``(row, position, d_model)``, in float32."""
        return torch.bmm(self.weights[:, None], hidden.float())[:, 0]


def prepare(model: pp.Model, dialogues: Sequence[pp.Dialogue]) -> list[Batch]:
    """The same batches as ours makes."""
    encoded = model.encode(dialogues)
    spans = [item.span("response") for item in encoded]
    lengths = [span.stop for span in spans]  # tokens after the span are not run
    prepared = []
    for rows in batches(lengths, tokens_per_batch_for(model.device)):
        ids = [list(encoded[row].input_ids[: spans[row].stop]) for row in rows]
        padded = model.tokenizer.pad({"input_ids": ids}, return_tensors="pt", padding_side="right").to(model.device)
        weights = torch.zeros(padded["input_ids"].shape, device=model.device)
        for i, row in enumerate(rows):
            span = spans[row]
            weights[i, span] = 1 / (span.stop - span.start)
        prepared.append(Batch(list(rows), padded["input_ids"], padded["attention_mask"], weights))
    return prepared


def in_order(prepared: Sequence[Batch], means: Sequence[Tensor]) -> Tensor:
    """``(row, layer, d_model)`` of all batches, in the order of the dialogues."""
    rows = torch.tensor([row for batch in prepared for row in batch.rows])
    return torch.cat(list(means))[rows.argsort()]


def tokens_of(model: pp.Model, dialogues: Sequence[pp.Dialogue]) -> list[int]:
    return [len(item.input_ids) for item in model.encode(dialogues)]
