"""Set the projection to a target."""

from __future__ import annotations

from typing import Any

import torch

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.add import finite_strength
from persona_probe.steering.interventions.change import Change, LinearChange
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.interventions.intervention import Targets, by_layer, value_at


class Clamp(Directed):
    """Bring the projection ``h . v / ||v||`` to ``target``, ``strength`` of the way (1: all of it).

    Args:
        direction: along which.
        layers: where.
        target: in residual-stream units, one for all layers or one a layer.
        strength: how much of the way.
        scope: which tokens.
        along: the null: the displacement that is needed goes along this direction instead; one layer only.
    """

    kind = "clamp"
    direction: Direction

    def __init__(
        self,
        direction: Direction,
        layers: Layers,
        *,
        target: Targets | None = None,
        strength: float = 1.0,
        scope: str | Scope = "generation",
        along: Direction | None = None,
    ) -> None:
        super().__init__(direction, layers, scope, null=along)
        if target is None:
            raise PersonaProbeError("kind='clamp' needs target=, the projection to set (residual-stream units)")
        self.target = by_layer(target, "target")
        self._strength = finite_strength(strength)

    @property
    def strength(self) -> float:
        """How much of the way to the target."""
        return self._strength

    def with_strength(self, strength: float) -> Clamp:
        """The same, another part of the way."""
        return Clamp(
            self.direction, self.layers, target=self.target, strength=strength, scope=self.scope, along=self.null
        )

    def along(self, null: Direction) -> Clamp:
        """The same displacement at every token, along ``null``."""
        return Clamp(
            self.direction, self.layers, target=self.target, strength=self._strength, scope=self.scope, along=null
        )

    def parameters(self) -> dict[str, Any]:
        """Direction, target and strength."""
        return {**super().parameters(), "target": self.target, "strength": self._strength}

    def at(self, layer: int) -> Change:
        """The projection that is set."""
        target = torch.tensor([value_at(self.target, layer, "target")], dtype=torch.float64)
        return LinearChange.setting(self.read_vectors(layer), target, target, self._strength, self.write_vectors(layer))
