"""``h + strength * v``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.change import Change, LinearChange
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.interventions.intervention import is_finite


class Add(Directed):
    """Add the raw vector, ``strength`` times: strength 1 is one mean difference."""

    kind = "add"
    direction: Direction

    def __init__(
        self, direction: Direction, layers: Layers, *, strength: float = 1.0, scope: str | Scope = "generation"
    ) -> None:
        super().__init__(direction, layers, scope)
        self._strength = finite_strength(strength)

    @property
    def strength(self) -> float:
        """What multiplies the raw vector."""
        return self._strength

    def with_strength(self, strength: float) -> Add:
        """The same at another strength."""
        return Add(self.direction, self.layers, strength=strength, scope=self.scope)

    def along(self, null: Direction) -> Add:
        """``null`` instead, at this direction's length at every layer."""
        layers = self.direction.layers if isinstance(self.layers, str) else self.layers
        lengths = self.direction.select(layers).norms()
        scaled = null.select(layers).units() * lengths[:, None]
        made = Direction(scaled.astype(np.float32), layers, {"name": null.name, "finder": "given"})
        return Add(made, self.layers, strength=self._strength, scope=self.scope)

    def parameters(self) -> dict[str, Any]:
        """Direction and strength."""
        return {**super().parameters(), "strength": self._strength}

    def at(self, layer: int) -> Change:
        """The vector to be added."""
        return LinearChange.adding(torch.from_numpy(self.direction.at(layer)).double() * self._strength)


def finite_strength(strength: float) -> float:
    """``strength`` as a number.

    Raises:
        PersonaProbeError: if it is none, or not finite.
    """
    if not is_finite(strength):
        raise PersonaProbeError(f"strength is {strength!r}; give a finite number")
    return float(strength)
