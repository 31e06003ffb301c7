"""Keep the component along a direction out of the residual stream altogether."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.directions.subspace import Subspace
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import is_whole
from persona_probe.steering.interventions.ablate import Ablate
from persona_probe.steering.interventions.change import Change, placed
from persona_probe.steering.interventions.directed import Directed


class AblateEverywhere(Directed):
    """Take one direction out of the embedding and of all that blocks write, so that the stream never holds it.

    What orthogonalised weights compute (Arditi et al. 2024, arXiv:2406.11717, sections 2.4 and 4.1), and so what
    `persona_probe.steering.bake` can write. `Ablate` acts on the outputs of chosen blocks: there, attention's output
    still reaches the MLP of its own block with the component in it.

    Args:
        direction: whose vector is taken; of a `Subspace`, all dimensions.
        layer: of which layer: one vector for the whole stream.
    """

    kind = "ablate-everywhere"

    def __init__(self, direction: Direction | Subspace, layer: int) -> None:
        super().__init__(direction, "all", "all", subspaces=True)
        if not is_whole(layer):
            raise PersonaProbeError(
                f"layer is {layer!r}; kind={self.kind!r} takes one vector for the whole stream, so give the number of "
                "the layer whose vector it is"
            )
        self.layer = int(layer)
        self.basis  # noqa: B018  (so that a layer that the direction lacks is refused here)

    @property
    def basis(self) -> Float[Tensor, "k d_model"]:
        """What is taken out: orthonormal rows, in float64."""
        return self.read_vectors(self.layer)

    def check(self, model: Model, *, allow_unrelated: bool = False) -> None:
        """Refuse a model that the direction does not fit."""
        Ablate(self.direction, self.layer).check(model, allow_unrelated=allow_unrelated)

    def parameters(self) -> dict[str, Any]:
        """The direction's name, and the layer of its vector."""
        return {**super().parameters(), "layer": self.layer}

    def at(self, layer: int) -> Change:
        """Refused: what it does is not done to a block's output."""
        raise PersonaProbeError(
            f"kind={self.kind!r} acts on all that is written to the stream, not on the output of layer {layer}: use it "
            "by itself, for all dialogues (`with pp.steer(model, intervention)`), not within a list"
        )

    def everywhere_in(self, model: Model, *, allow_unrelated: bool = False) -> contextlib.AbstractContextManager[None]:
        """The context in which nothing is written along the direction; `persona_probe.steer` opens it.

        Raises:
            PersonaProbeError: for a direction of another model, or where blocks do more than add to the stream.
        """
        self.check(model, allow_unrelated=allow_unrelated)
        bases: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}

        def without(hidden: Tensor) -> Tensor:
            # Half precision keeps 8 bits of a projection, which would leave much of it standing.
            dtype = torch.promote_types(hidden.dtype, torch.float32)
            key = (hidden.device, dtype)
            if key not in bases:  # copied once a device: a copy a token would make the host wait for a GPU
                bases[key] = placed([self.basis], *key)
            (rows,), exact = bases[key], hidden.to(dtype)
            left: Tensor = exact - (exact @ rows.T) @ rows
            return left.to(hidden.dtype)

        return model.changing_writes(without)
