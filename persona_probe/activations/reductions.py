"""Reductions inside the hook: a batch's residual stream becomes something small before the next block runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.activations.moments import Covariance, Moments
from persona_probe.activations.sinks import SinkFilter


@dataclass(frozen=True)
class Batch:
    """A batch of dialogues, padded on the right.

    Attributes:
        rows: the numbers of the dialogues.
        ids: token ids.
        real: which tokens are not padding.
        inside: which tokens are in the span.
    """

    rows: list[int]
    ids: Int[Tensor, "batch position"]
    real: Bool[Tensor, "batch position"]
    inside: Bool[Tensor, "batch position"]


class Reduction(ABC):
    """Reduces every wanted layer of a batch, then commits it; a batch that fails half way leaves nothing behind."""

    def __init__(self, layers: Sequence[int]) -> None:
        self.layers = list(layers)
        self._pending: dict[int, Any] = {}

    def begin(self) -> None:
        """Drop what an unfinished batch left."""
        self._pending = {}

    @abstractmethod
    def see(self, layer: int, hidden: Float[Tensor, "batch position d_model"], batch: Batch) -> None:
        """Reduce one layer of a batch, on its device."""

    @abstractmethod
    def commit(self, batch: Batch) -> None:
        """Add the batch's reduced layers to the result."""


class OneVector(Reduction):
    """``mean``, ``last`` or ``max`` over the span: ``values`` is ``(dialogue, layer, d_model)``, float32."""

    def __init__(
        self, how: str, n_dialogues: int, layers: Sequence[int], d_model: int, sinks: SinkFilter | None = None
    ) -> None:
        super().__init__(layers)
        self.how, self.sinks = how, sinks
        self.values = np.empty((n_dialogues, len(self.layers), d_model), dtype=np.float32)

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Reduce the span to one vector per dialogue."""
        inside = batch.inside.to(hidden.device)
        if self.how == "last":
            last = inside.shape[1] - 1 - inside.flip(1).int().argmax(dim=1)
            self._pending[layer] = hidden[torch.arange(len(batch.rows), device=hidden.device), last].float()
        elif self.how == "max":
            outside = rearrange(~inside, "batch position -> batch position 1")
            self._pending[layer] = hidden.float().masked_fill(outside, -torch.inf).amax(dim=1)
        else:
            kept = _kept(self.sinks, layer, hidden, inside, batch)
            weights = kept.float() / kept.sum(dim=1, keepdim=True)
            # A batched product of matrices, since an einsum takes far longer on a CPU.
            rows = rearrange(weights, "batch position -> batch 1 position") @ hidden.float()
            self._pending[layer] = rearrange(rows, "batch 1 d_model -> batch d_model")

    def commit(self, batch: Batch) -> None:
        """Put the vectors into their rows."""
        for column, layer in enumerate(self.layers):
            self.values[batch.rows, column] = self._pending[layer].cpu().numpy()
        if self.sinks is not None:
            self.sinks.commit(batch.rows)


class EveryToken(Reduction):
    """Every token of the span: ``values`` is ``(token, layer, d_model)``, float32, dialogue after dialogue."""

    def __init__(self, spans: Sequence[slice], layers: Sequence[int], d_model: int) -> None:
        super().__init__(layers)
        lengths = [span.stop - span.start for span in spans]
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.values = np.empty((int(self.starts[-1]), len(self.layers), d_model), dtype=np.float32)

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Select the span's tokens."""
        self._pending[layer] = hidden[batch.inside.to(hidden.device)].float()

    def commit(self, batch: Batch) -> None:
        """Put the tokens into their rows."""
        places = np.concatenate([np.arange(self.starts[row], self.starts[row + 1]) for row in batch.rows])
        for column, layer in enumerate(self.layers):
            self.values[places, column] = self._pending[layer].cpu().numpy()


class StreamingMoments(Reduction):
    """Count, mean and scatter of the span's tokens, in float64 on the device of the layer."""

    def __init__(self, covariance: Covariance, layers: Sequence[int], sinks: SinkFilter | None = None) -> None:
        super().__init__(layers)
        self.full, self.sinks = covariance == "full", sinks
        self._held: dict[int, tuple[int, Tensor, Tensor]] = {}

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Centre the batch on its own mean, so that no digits are lost where means are large."""
        inside = batch.inside.to(hidden.device)
        tokens = hidden[_kept(self.sinks, layer, hidden, inside, batch)]
        tokens = (tokens.cpu() if tokens.device.type == "mps" else tokens).double()  # MPS has no float64
        mean = tokens.mean(dim=0)
        tokens -= mean
        scatter = tokens.T @ tokens if self.full else (tokens * tokens).sum(dim=0)
        self._pending[layer] = (tokens.shape[0], mean, scatter)

    def commit(self, batch: Batch) -> None:
        """Merge the batch (Chan, Golub and LeVeque 1983, equation 2.1)."""
        for layer, part in self._pending.items():
            if layer not in self._held:
                self._held[layer] = part
                continue
            (n, mean, scatter), (more, other, spread) = self._held[layer], part
            apart, lever = other - mean, n * more / (n + more)
            mean += apart * (more / (n + more))
            scatter += spread
            if self.full:
                scatter.addr_(apart, apart, alpha=lever)
            else:
                scatter.addcmul_(apart, apart, value=lever)
            self._held[layer] = (n + more, mean, scatter)
        if self.sinks is not None:
            self.sinks.commit(batch.rows)

    def result(self, n_dialogues: int, source: dict[str, Any]) -> Moments:
        """The moments of all tokens that were read."""
        n, mean, scatter = zip(*(self._held[layer] for layer in self.layers), strict=True)
        return Moments(
            np.array(n),
            np.stack([tensor.cpu().numpy() for tensor in mean]),
            np.stack([tensor.cpu().numpy() for tensor in scatter]),
            tuple(self.layers),
            n_dialogues,
            source,
        )


def _kept(
    sinks: SinkFilter | None, layer: int, hidden: Tensor, inside: Bool[Tensor, "batch position"], batch: Batch
) -> Bool[Tensor, "batch position"]:
    """The span's tokens without sinks."""
    if sinks is None:
        return inside
    return sinks.leave_out(layer, hidden, inside, batch.real.to(hidden.device), batch.rows)
