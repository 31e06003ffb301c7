"""Adding a vector: ``h + strength * v``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError, check_types, what_is
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.change import Change, LinearChange
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.interventions.intervention import is_finite


class Add(Directed):
    """Adds the raw vector, multiplied by ``strength``: strength 1 is one mean difference.

    >>> import numpy as np
    >>> import persona_probe as pp
    >>> direction = pp.Direction(np.array([[3.0, 4.0]]), (2,), {"name": "evil"})
    >>> pp.Add(direction, layers=2).with_strength(-0.5)
    Add(layers=[2], scope='generation', direction='evil', strength=-0.5)
    """

    kind = "add"
    direction: Direction

    def __init__(
        self, direction: Direction, layers: Layers, *, strength: float = 1.0, scope: str | Scope = "generation"
    ) -> None:
        super().__init__(direction, layers, scope)
        self._strength = finite_strength(strength)

    @property
    def strength(self) -> float:
        """The factor of the raw vector."""
        return self._strength

    def with_strength(self, strength: float) -> Add:
        """The same intervention at another strength."""
        return Add(self.direction, self.layers, strength=strength, scope=self.scope)

    def along(self, null: Direction) -> Add:
        """The addition of ``null``, at this direction's length at every layer."""
        check_types(null=(null, Direction))
        layers = self.direction.layers if isinstance(self.layers, str) else self.layers
        lengths = self.direction.select(layers).norms()
        vectors = null.select(layers).units() * lengths[:, None]
        scaled = Direction(vectors.astype(np.float32), layers, {"name": null.name, "finder": "given"})
        return Add(scaled, self.layers, strength=self._strength, scope=self.scope)

    def parameters(self) -> dict[str, Any]:
        """Direction and strength."""
        return {**super().parameters(), "strength": self._strength}

    def at(self, layer: int) -> Change:
        """The change that adds the vector."""
        return LinearChange.adding(torch.from_numpy(self.direction.at(layer)).double() * self._strength)


def finite_strength(strength: float) -> float:
    """``strength`` as a float.

    Raises:
        PersonaProbeError: if it is not a number, or not finite.
    """
    if not is_finite(strength):
        raise PersonaProbeError(f"strength is {what_is(strength)}; give a finite number")
    return float(strength)
