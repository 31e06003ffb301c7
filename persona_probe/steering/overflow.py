"""Numbers that half precision cannot hold: noticed while steering, named afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model


class Overflow:
    """The largest numbers in the steered stream of a model in half precision; nothing is watched in others.

    Attributes:
        layers: which are watched: those that are steered, and the last, where what overflowed in between arrives.
    """

    def __init__(self, model: Model, steered: Sequence[int]) -> None:
        self._model, self._steered, self._last = model, steered, model.n_layers - 1
        half = torch.finfo(model.plain.dtype).bits < 32
        self.layers = frozenset({*steered, self._last} if half and steered else ())
        self._largest: dict[int, Tensor] = {}

    def watched(self, layer: int, steered: Tensor) -> Tensor:
        """The stream at ``layer``, with what is not finite set to zero at the last one.

        With that, logits stay finite: a sampler that meets others dies in CUDA and takes the process with it, before
        anything can be named.
        """
        # The norm keeps NaN and infinity, waits for nothing, and is one pass over the stream.
        largest = torch.linalg.vector_norm(steered.detach(), ord=float("inf"))
        known = self._largest.get(layer)
        self._largest[layer] = largest if known is None else torch.maximum(known, largest)
        return torch.nan_to_num(steered, nan=0.0, posinf=0.0, neginf=0.0) if layer == self._last else steered

    def check(self) -> None:
        """Refuse what came of an overflow since the last call; waits for the device.

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
