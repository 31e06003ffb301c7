"""The state of one forward pass: which rows are steered at which tokens, and values that overflowed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.stream.boundary import Boundary
from persona_probe.models.stream.scope import Scope


@dataclass(frozen=True)
class Hit:
    """The tokens that a group acts on: those of the columns ``first`` to ``last - 1`` at which ``mask`` is true."""

    first: int
    last: int
    mask: Bool[Tensor, "row column"] | None
    setting: Int[Tensor, "... row"] | None


@dataclass(frozen=True)
class SteeredBatch:
    """What stays the same in all forward passes of a batch.

    Attributes:
        boundary: where its prompts end.
        size: number of rows, with all beams.
        settings: the setting of each row.
        scopes: each scope with the rows that have it, in the batch and (without beams) in the boundary.
        hits: for forward passes of one token: the hits by the rows that are in scope, which are often the same.
    """

    boundary: Boundary | None
    size: int
    settings: Int[np.ndarray, "... row"]
    scopes: Sequence[tuple[Scope, Bool[np.ndarray, "... row"], Int[np.ndarray, "... prompt"]]]
    hits: dict[bytes, dict[Hashable, Hit | None]] = field(default_factory=dict)


@dataclass
class Forward:
    """The tokens that are acted on in the current forward pass.

    Attributes:
        batch: the batch whose rows they are.
        offset: position of the first token.
        length: number of tokens in each row.
        inside: the tokens in the scope of their row's setting.
        hits: the hits of the groups that were computed so far.
        open: where gates are open, according to the layers read so far; None if there is no gate.
    """

    batch: SteeredBatch
    offset: int
    length: int
    inside: Bool[np.ndarray, "row position"]
    hits: dict[Hashable, Hit | None]
    open: Bool[Tensor, "row position"] | None = None


def is_of(batch: SteeredBatch, boundary: Boundary | None, size: int) -> bool:
    """Whether a forward pass of ``size`` rows at ``boundary`` is one of ``batch``."""
    return batch.boundary is boundary and batch.size == size


def tokens_inside(batch: SteeredBatch, offset: int, length: int) -> Bool[np.ndarray, "row position"]:
    """The tokens in the scope of their row's setting."""
    inside = np.zeros((batch.size, length), dtype=bool)
    for scope, rows, prompts in batch.scopes:
        if batch.boundary is None:
            inside[rows] = True
        else:
            # Only rows with this scope are looked at: others need not have the positions or turns that it names.
            some = None if len(prompts) == len(batch.boundary.begins) else prompts
            mask = batch.boundary.mask(scope, offset, length, some)
            inside[rows] = np.repeat(mask, int(rows.sum()) // len(prompts), axis=0)
    return inside


def copies_of(held: int, batch: int) -> int:
    """How often each prompt is in the batch: beams and several sequences per prompt are copies next to each other.

    Raises:
        PersonaProbeError: if the batch size is not a multiple of the number of prompts.
    """
    if batch % held:
        raise PersonaProbeError(
            f"steering: a batch of {batch} rows is being read, but {held} prompts were given; this way of generating "
            "is not supported"
        )
    return batch // held


class Overflow:
    """The largest numbers in the steered stream of a model in half precision; other models are not watched.

    Attributes:
        layers: the layers that are watched: those that are steered, and the last one, which any overflow reaches.
    """

    def __init__(self, model: Model, steered: Sequence[int]) -> None:
        self._model, self._steered, self._last = model, steered, model.n_layers - 1
        half = torch.finfo(model.plain.dtype).bits < 32
        self.layers = frozenset({*steered, self._last} if half and steered else ())
        self._largest: dict[int, Tensor] = {}

    def watched(self, layer: int, steered: Tensor) -> Tensor:
        """The stream at ``layer``, in which values that are not finite are set to zero at the last layer.

        Logits thereby stay finite: with others, a sampler in CUDA would end the process before an error can be raised.
        """
        # The norm propagates NaN and infinity, does not wait for the device, and is one pass over the stream.
        largest = torch.linalg.vector_norm(steered.detach(), ord=float("inf"))
        known = self._largest.get(layer)
        self._largest[layer] = largest if known is None else torch.maximum(known, largest)
        return torch.nan_to_num(steered, nan=0.0, posinf=0.0, neginf=0.0) if layer == self._last else steered

    def check(self) -> None:
        """Raise if the stream has overflowed since the last call; waits for the device.

        Raises:
            PersonaProbeError: naming the first watched layer at which the stream was not finite.
        """
        largest, self._largest = self._largest, {}
        for layer, value in sorted(largest.items()):
            if not torch.isfinite(value):
                dtype = self._model.plain.dtype
                where = f"at layer {layer}"
                if layer not in self._steered:
                    where = f"between layer {max(self._steered)}, the last that is steered, and layer {layer}"
                raise PersonaProbeError(
                    f"steering made the residual stream of {self._model.name} overflow {where}: "
                    f"{str(dtype).removeprefix('torch.')} holds numbers up to {torch.finfo(dtype).max:.3g}; steer more "
                    "weakly, or load the model with dtype='bfloat16' or 'float32'"
                )
