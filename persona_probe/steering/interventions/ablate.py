"""Take the component along a direction, or in a subspace, out."""

from __future__ import annotations

import torch

from persona_probe.directions.direction import Direction
from persona_probe.directions.subspace import Subspace
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.change import Change, LinearChange
from persona_probe.steering.interventions.directed import Directed


class Ablate(Directed):
    """Project out: afterwards ``h . v`` is zero (Arditi et al. 2024, arXiv:2406.11717, section 2.4).

    Zero is not what a model does without the persona: where the reference's mean is far from it, `MeanAblate`.

    Args:
        direction: what is taken out; of a `Subspace`, all of its dimensions.
        layers: where.
        scope: which tokens.
        along: the null: the displacement goes along this direction instead; one layer only.
    """

    kind = "ablate"

    def __init__(
        self,
        direction: Direction | Subspace,
        layers: Layers,
        *,
        scope: str | Scope = "generation",
        along: Direction | None = None,
    ) -> None:
        super().__init__(direction, layers, scope, subspaces=True, null=along)

    def along(self, null: Direction) -> Ablate:
        """The same displacement at every token, along ``null``."""
        return Ablate(self.direction, self.layers, scope=self.scope, along=null)

    def at(self, layer: int) -> Change:
        """The projection set to zero."""
        read = self.read_vectors(layer)
        zero = torch.zeros(len(read), dtype=read.dtype)
        return LinearChange.setting(read, zero, zero, 1.0, self.write_vectors(layer))
