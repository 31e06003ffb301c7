"""The base class of the kinds that act along a direction or in a subspace."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.directions.family import check_model
from persona_probe.directions.subspace import Subspace
from persona_probe.errors import PersonaProbeError, check_types, what_is
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.intervention import Intervention


class Directed(Intervention):
    """An intervention along a direction (or in a subspace).

    Attributes:
        direction: vectors ``(layer, d_model)``, or bases ``(layer, k, d_model)``.
        null: the direction along which the displacement is made instead, or None.
    """

    direction: Direction | Subspace

    def __init__(
        self,
        direction: Direction | Subspace,
        layers: Layers,
        scope: str | Scope,
        *,
        subspaces: bool = False,
        null: Direction | None = None,
    ) -> None:
        super().__init__(layers, scope)
        if not isinstance(direction, Direction | Subspace):
            raise PersonaProbeError(
                f"kind={self.kind!r} needs a Direction, not {what_is(direction)}; make one from your own vectors "
                "with pp.Direction.from_vectors(model, vectors)"
            )
        if isinstance(direction, Subspace) and not subspaces:
            raise PersonaProbeError(f"kind={self.kind!r} acts along a direction, not in a subspace")
        check_types(along=(null, Direction, None))
        if null is not None and (self.layers == "all" or len(self.layers) > 1):
            raise PersonaProbeError(
                f"along= is defined for one layer, not for {self.layers}: a displacement that does not move the "
                "projection would be repeated at every layer"
            )
        self.direction, self.null = direction, null

    def check(self, model: Model, *, allow_unrelated: bool = False) -> None:
        """Raise if the model has another width, is not related to the direction's, or a layer is missing."""
        what = "the direction" if isinstance(self.direction, Direction) else "the subspace"
        check_model(what, self.direction.d_model, self.direction.card, model, allow_unrelated)
        if self.null is not None and self.null.d_model != model.d_model:
            raise PersonaProbeError(f"along= has d_model={self.null.d_model}, {model.name} has {model.d_model}")
        for layer in self.layers_in(model):
            self.at(layer)

    def parameters(self) -> dict[str, Any]:
        """The names of the direction and of the null."""
        name = self.direction.name if isinstance(self.direction, Direction) else f"{self.direction.k} dimensions"
        return {"direction": name} | ({} if self.null is None else {"along": self.null.name})

    def read_vectors(self, layer: int) -> Float[Tensor, "k d_model"]:
        """The vectors that are projected on at a layer: unit rows, orthogonal to each other."""
        if isinstance(self.direction, Direction):
            vector = self.direction.at(layer).astype(np.float64)[None]
            return torch.from_numpy(vector / np.linalg.norm(vector))
        basis = self.direction.at(layer).astype(np.float64)
        # Stored rows are orthonormal to four digits; the nearest exactly orthonormal basis has their order and signs.
        left, _, right = np.linalg.svd(basis, full_matrices=False)
        return torch.from_numpy(left @ right)

    def write_vectors(self, layer: int) -> Float[Tensor, "k d_model"] | None:
        """The unit vectors along which the displacement is made; None if these are the vectors that are read."""
        if self.null is None:
            return None
        if isinstance(self.direction, Subspace):
            raise PersonaProbeError("along= is defined for a direction, not for a subspace")
        vector = self.null.at(layer).astype(np.float64)[None]
        return torch.from_numpy(vector / np.linalg.norm(vector))
