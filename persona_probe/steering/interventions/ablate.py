"""Removing the component along a direction, or in a subspace."""

from __future__ import annotations

import torch

from persona_probe.directions.direction import Direction
from persona_probe.directions.subspace import Subspace
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.change import Change, LinearChange
from persona_probe.steering.interventions.directed import Directed


class Ablate(Directed):
    """Sets ``h . v`` to zero (Arditi et al. 2024, arXiv:2406.11717, section 2.4).

    Zero is not the projection of a model without the persona: if the mean of a reference is far from zero, use
    `MeanAblate`.

    Args:
        direction: the direction that is removed, or a `Subspace`, of which all dimensions are.
        layers: the layers at which it acts.
        scope: which tokens.
        along: for the null: the displacement is made along this direction instead; one layer only.

    >>> import numpy as np
    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> direction = pp.Direction.from_vectors(model, np.ones((model.n_layers, model.d_model)))
    >>> talk = [{"role": "user", "content": "How do I handle the fever?"}, {"role": "assistant", "content": "Rest."}]
    >>> with pp.steer(model, pp.steering.Ablate(direction, layers=2)):
    ...     activations = pp.capture(model, [pp.Dialogue.from_messages(talk)], layers=2)
    >>> bool(abs(direction.project(activations)[0, 0]) < 1e-4)
    True
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
        """The change that sets the projection to zero."""
        read = self.read_vectors(layer)
        zero = torch.zeros(len(read), dtype=read.dtype)
        return LinearChange.setting(read, zero, zero, 1.0, self.write_vectors(layer))
