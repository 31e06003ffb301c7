"""Attention sinks: tokens whose norm is so enormous that one of them would be the mean.

Some models (Qwen, Gemma, Llama) park attention on a few tokens, usually the first and some delimiters, whose residual
stream is tens to thousands of times as long as that of the others (Sun et al. 2024, "Massive activations in large
language models", section 2). The rule: at a layer, a token is a sink if its norm is more than ``ratio`` times the
median norm of its dialogue's tokens there. Sinks are left out of means and moments, unless the span holds nothing else.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

SINK_RATIO = 10.0
"""How many times the median norm makes a sink. Ordinary tokens reach about 4 (measured in Persona World)."""


def sink_tokens(
    hidden: Float[Tensor, "batch position d_model"], real: Bool[Tensor, "batch position"], ratio: float
) -> Bool[Tensor, "batch position"]:
    """Which tokens are sinks by the rule; padding never is."""
    norms = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32).masked_fill(~real, torch.nan)
    return norms > ratio * norms.nanmedian(dim=1, keepdim=True).values


def without_sinks(
    inside: Bool[Tensor, "batch position"], sinks: Bool[Tensor, "batch position"]
) -> Bool[Tensor, "batch position"]:
    """The span without its sinks; a span of nothing but sinks stays whole."""
    kept = inside & ~sinks
    return torch.where(kept.any(dim=1, keepdim=True), kept, inside)


class SinkRecord:
    """Which tokens were sinks, by dialogue and layer; they are few, so their places are kept.

    A second model can be read by the record of the first, so that both means are over the same tokens.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], list[int]] = defaultdict(list)

    def add(self, layer: int, rows: list[int], sinks: Bool[Tensor, "batch position"]) -> None:
        """Note the sinks of a batch at a layer."""
        for row, position in sinks.nonzero().tolist():
            self._places[layer, rows[row]].append(position)

    def mask(self, layer: int, rows: list[int], like: Bool[Tensor, "batch position"]) -> Bool[Tensor, "batch position"]:
        """The noted sinks of these rows as a mask shaped as ``like``."""
        mask = torch.zeros_like(like)
        for i, row in enumerate(rows):
            if (layer, row) in self._places:
                mask[i, self._places[layer, row]] = True
        return mask

    def counts(self, n_dialogues: int, layers: list[int], spans: list[slice]) -> np.ndarray:
        """How many sinks lie in each dialogue's span at each layer, ``(dialogue, layer)``."""
        counts = np.zeros((n_dialogues, len(layers)), dtype=np.int64)
        for (layer, row), positions in self._places.items():
            inside = sum(spans[row].start <= position < spans[row].stop for position in positions)
            # A span of nothing but sinks was kept whole.
            counts[row, layers.index(layer)] = inside if inside < spans[row].stop - spans[row].start else 0
        return counts


class SinkFilter:
    """Leaves sinks out of spans: those that the rule finds, which are noted, or those in another model's record.

    Attributes:
        record: the sinks that were left out.
    """

    def __init__(self, ratio: float, follow: SinkRecord | None = None) -> None:
        self.ratio, self.follow = ratio, follow
        self.record = follow or SinkRecord()
        self._pending: dict[int, Tensor] = {}

    def leave_out(
        self,
        layer: int,
        hidden: Float[Tensor, "batch position d_model"],
        inside: Bool[Tensor, "batch position"],
        real: Bool[Tensor, "batch position"],
        rows: list[int],
    ) -> Bool[Tensor, "batch position"]:
        """What is left of the span at this layer."""
        if self.follow is not None:
            return without_sinks(inside, self.follow.mask(layer, rows, inside))
        sinks = sink_tokens(hidden, real, self.ratio)
        self._pending[layer] = sinks
        return without_sinks(inside, sinks)

    def commit(self, rows: list[int]) -> None:
        """Note the sinks of a batch that went through."""
        for layer, sinks in self._pending.items():
            self.record.add(layer, rows, sinks)
        self._pending = {}
