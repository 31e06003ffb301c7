"""Attention sinks: tokens whose norm is so large that a single one of them would determine a mean.

In some models (Qwen, Gemma, Llama) much attention goes to a few tokens, usually the first and some delimiters, whose
residual stream is tens to thousands of times as long as that of the others (Sun et al. 2024, "Massive activations in
large language models", section 2). The rule: at a layer, a token is a sink if its norm is more than ``ratio`` times the
median norm of its dialogue's tokens there, up to the end of the span. Sinks are left out of means and moments, unless
the span contains only sinks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

SINK_RATIO = 10.0
"""How many times the median norm makes a token a sink. Ordinary tokens reach about 4 (measured in Persona World)."""


def sink_tokens(
    hidden: Float[Tensor, "batch position d_model"], real: Bool[Tensor, "batch position"], ratio: float
) -> Bool[Tensor, "batch position"]:
    """Which tokens are sinks by the rule; padding never is one."""
    precise = torch.promote_types(hidden.dtype, torch.float32)
    norms = torch.linalg.vector_norm(hidden, dim=-1, dtype=precise).masked_fill(~real, torch.nan)
    # A token that is not finite is not a sink, since it must not be hidden.
    return (norms > ratio * norms.nanmedian(dim=1, keepdim=True).values) & norms.isfinite()


def without_sinks(
    inside: Bool[Tensor, "batch position"], sinks: Bool[Tensor, "batch position"]
) -> Bool[Tensor, "batch position"]:
    """The span without its sinks; a span that contains only sinks stays as it is."""
    kept = inside & ~sinks
    return torch.where(kept.any(dim=1, keepdim=True), kept, inside)


class SinkRecord:
    """Which tokens were sinks, by layer and dialogue; only their positions are stored, since they are few.

    A second model can follow the record of the first, so that both means are over the same tokens.
    """

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], list[int]] = defaultdict(list)

    def add(self, layer: int, rows: list[int], sinks: Bool[Tensor, "batch position"]) -> None:
        """Record the sinks of a batch at a layer."""
        for row, position in sinks.nonzero().tolist():
            self._places[layer, rows[row]].append(position)

    def mask(self, layer: int, rows: list[int], like: Bool[Tensor, "batch position"]) -> Bool[Tensor, "batch position"]:
        """The recorded sinks of these rows as a mask with the shape of ``like``."""
        mask = torch.zeros(like.shape, dtype=torch.bool)
        for i, row in enumerate(rows):
            if (layer, row) in self._places:
                mask[i, self._places[layer, row]] = True
        return mask.to(like.device)


class SinkFilter:
    """Leaves sinks out of spans, those that the rule finds or those in another model's record, and counts them.

    Attributes:
        record: the sinks that the rule found, if they are recorded for other models, or the record that is followed.
        counts: ``(dialogue, layer)`` number of tokens that were left out.
    """

    def __init__(
        self,
        ratio: float,
        n_dialogues: int,
        layers: Sequence[int],
        *,
        remember: bool = False,
        follow: SinkRecord | None = None,
    ) -> None:
        self.ratio, self.layers, self.follow = ratio, list(layers), follow
        self.record = follow or (SinkRecord() if remember else None)
        self.counts = np.zeros((n_dialogues, len(self.layers)), dtype=np.int64)
        self._pending: dict[int, tuple[Tensor, Tensor]] = {}

    def leave_out(
        self,
        layer: int,
        hidden: Float[Tensor, "batch position d_model"],
        inside: Bool[Tensor, "batch position"],
        real: Bool[Tensor, "batch position"],
        rows: list[int],
    ) -> Bool[Tensor, "batch position"]:
        """The span without its sinks at this layer."""
        sinks = sink_tokens(hidden, real, self.ratio) if self.follow is None else self.follow.mask(layer, rows, inside)
        kept = without_sinks(inside, sinks)
        self._pending[layer] = (sinks, (inside & ~kept).sum(dim=1))
        return kept

    def commit(self, rows: list[int]) -> None:
        """Count, and record if asked, the sinks of a batch that has run."""
        for layer, (sinks, left_out) in self._pending.items():
            self.counts[rows, self.layers.index(layer)] = left_out.cpu().numpy()
            if self.follow is None and self.record is not None:
                self.record.add(layer, rows, sinks)
        self._pending = {}
