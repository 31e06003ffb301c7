"""Setting the projection to a target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.add import finite_strength
from persona_probe.steering.interventions.change import Change, LinearChange
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.interventions.intervention import Targets, by_layer, value_at


class Clamp(Directed):
    """Brings the projection ``h . v / ||v||`` to ``target``, ``strength`` of the way (1: all of it).

    Args:
        direction: the direction that is projected on.
        layers: the layers at which it acts.
        target: in residual-stream units, one for all layers or one per layer; or Activations (for example of the model
            before fine-tuning), which stand for their mean projection on the direction at each layer.
        strength: how much of the way.
        scope: which tokens.
        along: for the null: the displacement is made along this direction instead; one layer only.

    Raises:
        PersonaProbeError: if there is no target, it is not finite, or the Activations do not belong to the direction
            (another width, an unrelated model) or are empty.

    >>> import numpy as np, pandas as pd
    >>> import persona_probe as pp
    >>> direction = pp.Direction(np.array([[2.0, 0.0]]), (3,))
    >>> usual = pp.Activations(np.array([[[1.0, 5.0]], [[2.0, 7.0]]]), pd.DataFrame({"id": ["a", "b"]}), (3,))
    >>> pp.Clamp(direction, layers=3, target=usual).target
    {3: 1.5}
    """

    kind = "clamp"
    direction: Direction

    def __init__(
        self,
        direction: Direction,
        layers: Layers,
        *,
        target: Targets | Activations | None = None,
        strength: float = 1.0,
        scope: str | Scope = "generation",
        along: Direction | None = None,
    ) -> None:
        super().__init__(direction, layers, scope, null=along)
        if target is None:
            raise PersonaProbeError("kind='clamp' needs target=, the projection to set (residual-stream units)")
        means = _mean_projections(direction, target) if isinstance(target, Activations) else target
        self.target = by_layer(means, "target")
        self._strength = finite_strength(strength)

    @property
    def strength(self) -> float:
        """How much of the way to the target."""
        return self._strength

    def with_strength(self, strength: float) -> Clamp:
        """The same intervention at another strength."""
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
        """The change that sets the projection."""
        target = torch.tensor([value_at(self.target, layer, "target")], dtype=torch.float64)
        return LinearChange.setting(self.read_vectors(layer), target, target, self._strength, self.write_vectors(layer))


def _mean_projections(direction: Direction, activations: Activations) -> dict[int, float]:
    """The mean projection of ``activations`` on ``direction`` at each layer that both have, in residual-stream units.

    Raises:
        PersonaProbeError: if there is no row or no such layer, or as `Direction.project`.
    """
    shared = [layer for layer in activations.layers if layer in direction.layers]
    if not len(activations) or not shared:
        raise PersonaProbeError(
            f"target= holds {len(activations)} rows at layers {', '.join(map(str, activations.layers))}, and the "
            f"direction has layers {', '.join(map(str, direction.layers))}; give activations of at least one dialogue "
            "at the layers that are clamped"
        )
    if len(shared) < len(activations.layers):
        columns = [activations.layers.index(layer) for layer in shared]
        activations = replace(activations, values=activations.values[:, columns], layers=tuple(shared))
    projections = direction.project(activations)
    return {layer: float(projections[:, column].mean()) for column, layer in enumerate(shared)}
