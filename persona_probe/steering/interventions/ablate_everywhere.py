"""Keeping the component along a direction out of the whole residual stream."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.directions.subspace import Subspace
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import is_whole
from persona_probe.steering.interventions.ablate import Ablate
from persona_probe.steering.interventions.change import Change, placed
from persona_probe.steering.interventions.directed import Directed


class AblateEverywhere(Directed):
    """Removes one direction from the embedding and from all that blocks write, so that the stream never contains it.

    Orthogonalised weights compute the same (Arditi et al. 2024, arXiv:2406.11717, sections 2.4 and 4.1), so that
    `persona_probe.steering.bake` can write it. `Ablate` acts on the outputs of chosen blocks instead: there,
    attention's output still reaches the MLP of its own block with the component in it.

    Args:
        direction: the direction that is removed, or a `Subspace`, of which all dimensions are.
        layer: the layer whose vector is used for the whole stream.

    >>> import numpy as np
    >>> import persona_probe as pp
    >>> direction = pp.Direction(np.array([[3.0, 4.0]]), (2,), {"name": "evil"})
    >>> pp.steering.AblateEverywhere(direction, layer=2)
    AblateEverywhere(layers='all', scope='all', direction='evil', layer=2)
    """

    kind = "ablate-everywhere"

    def __init__(self, direction: Direction | Subspace, layer: int) -> None:
        super().__init__(direction, "all", "all", subspaces=True)
        if not is_whole(layer):
            raise PersonaProbeError(
                f"layer is {layer!r}; kind={self.kind!r} uses one vector for the whole stream: give the number of the "
                "layer whose vector it is"
            )
        self.layer = int(layer)
        self.basis  # noqa: B018  (so that a layer that the direction lacks is refused here)

    @property
    def basis(self) -> Float[Tensor, "k d_model"]:
        """The directions that are removed: orthonormal rows, in float64."""
        return self.read_vectors(self.layer)

    def check(self, model: Model, *, allow_unrelated: bool = False) -> None:
        """Raise if the direction does not fit the model."""
        Ablate(self.direction, self.layer).check(model, allow_unrelated=allow_unrelated)

    def parameters(self) -> dict[str, Any]:
        """The direction's name, and the layer of its vector."""
        return {**super().parameters(), "layer": self.layer}

    def at(self, layer: int) -> Change:
        """Raise, since it does not act on the output of a single block."""
        raise PersonaProbeError(
            f"kind={self.kind!r} acts on all that is written to the stream, not on the output of layer {layer}: use it "
            "alone, for all dialogues (`with pp.steer(model, intervention)`), not within a list"
        )

    @contextlib.contextmanager
    def everywhere_in(self, model: Model, *, allow_unrelated: bool = False) -> Iterator[None]:
        """The context in which nothing is written along the direction; `persona_probe.steer` opens it.

        Raises:
            PersonaProbeError: for a direction of another model, or if blocks do more than add to the stream.

        Warns:
            PersonaProbeWarning: if nothing was written to the stream, since ``model`` did not run.
        """
        self.check(model, allow_unrelated=allow_unrelated)
        bases: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}

        def without(hidden: Tensor) -> Tensor:
            # In float32, since half precision has 8 bits for a projection and would leave much of it.
            dtype = torch.promote_types(hidden.dtype, torch.float32)
            key = (hidden.device, dtype)
            if key not in bases:  # copied once per device, since a copy per token would make the host wait for a GPU
                bases[key] = placed([self.basis], *key)
            (rows,), exact = bases[key], hidden.to(dtype)
            left: Tensor = exact - (exact @ rows.T) @ rows
            return left.to(hidden.dtype)

        with model.changing_writes(without):
            yield
        if not bases:
            warnings.warn(
                f"steering: {model.name} wrote nothing to its stream, so that nothing was steered; if another model "
                "was run inside the context, steer that one",
                PersonaProbeWarning,
                stacklevel=5,
            )
