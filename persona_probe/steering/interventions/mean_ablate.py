"""Setting the projection to a reference's mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.directions.subspace import Subspace
from persona_probe.errors import WHOLE, PersonaProbeError, check_types, what_is
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.statistics.inputs import numeric_array
from persona_probe.steering.interventions.change import Change, LinearChange
from persona_probe.steering.interventions.directed import Directed


class MeanAblate(Directed):
    """Sets the projection (or all coordinates in a subspace) to the mean of ``reference``.

    Args:
        direction: the direction that is projected on, or a `Subspace`.
        layers: the layers at which it acts.
        reference: activations that the stream should resemble (for example of the before model on its own answers, over
            the span that ``scope`` steers); or the mean coordinates themselves, ``(k,)`` per layer.
        scope: which tokens.
        along: for the null: the displacement is made along this direction instead; one layer only.

    Raises:
        PersonaProbeError: if there is no reference, it lacks one of the layers, or its numbers have another width or
            are not finite.

    >>> import pandas as pd
    >>> import persona_probe as pp
    >>> direction = pp.Direction(np.array([[3.0, 4.0]]), (2,), {"name": "evil"})
    >>> usual = pp.Activations(np.array([[[5.0, 0.0]], [[10.0, 0.0]]]), pd.DataFrame({"id": ["a", "b"]}), (2,))
    >>> pp.steering.MeanAblate(direction, layers=2, reference=usual).parameters()
    {'direction': 'evil', 'means': {2: [4.5]}}
    """

    kind = "mean-ablate"

    def __init__(
        self,
        direction: Direction | Subspace,
        layers: Layers,
        *,
        reference: Activations | Mapping[int, Float[np.ndarray, "... k"]] | None = None,
        scope: str | Scope = "generation",
        along: Direction | None = None,
    ) -> None:
        super().__init__(direction, layers, scope, subspaces=True, null=along)
        if reference is None:
            raise PersonaProbeError(
                "kind='mean-ablate' needs reference=, the activations whose mean projection is the target"
            )
        if not isinstance(reference, Activations | Mapping):
            raise PersonaProbeError(
                f"reference is {what_is(reference)}; give Activations, or the mean coordinates as a mapping from "
                "layers to arrays"
            )
        self.means = _means(self, reference) if isinstance(reference, Activations) else _given(self, reference)

    def along(self, null: Direction) -> MeanAblate:
        """The same displacement at every token, along ``null``."""
        return MeanAblate(self.direction, self.layers, reference=self.means, scope=self.scope, along=null)

    def parameters(self) -> dict[str, Any]:
        """The direction, and the mean at every layer."""
        return {**super().parameters(), "means": {layer: mean.tolist() for layer, mean in self.means.items()}}

    def at(self, layer: int) -> Change:
        """The change that sets the projection to the mean."""
        if layer not in self.means:
            raise PersonaProbeError(
                f"the reference was not read at layer {layer}; it was read at {', '.join(map(str, self.means))}"
            )
        target = torch.from_numpy(self.means[layer])
        return LinearChange.setting(self.read_vectors(layer), target, target, 1.0, self.write_vectors(layer))


def _means(intervention: Directed, reference: Activations) -> dict[int, np.ndarray]:
    direction, given = intervention.direction, reference.values.shape[-1]
    if given != direction.d_model:
        raise PersonaProbeError(
            f"the reference has d_model={given}, the direction {direction.d_model}: they belong to two models"
        )
    shared = [layer for layer in reference.layers if layer in direction.layers]
    means = {
        layer: reference.at(layer).mean(axis=0, dtype=np.float64) @ intervention.read_vectors(layer).numpy().T
        for layer in shared
    }
    return _given(intervention, means)


def _given(intervention: Directed, means: Mapping[int, Float[np.ndarray, "... k"]]) -> dict[int, np.ndarray]:
    """``means`` in float64; raise if they are not finite, or not as many as there are projections."""
    check_types(layers=(list(means), [WHOLE]))
    checked = {
        layer: numeric_array(mean, f"the reference's mean at layer {layer}").astype(np.float64).reshape(-1)
        for layer, mean in means.items()
    }
    k = 1 if isinstance(intervention.direction, Direction) else intervention.direction.k
    for layer, mean in checked.items():
        if len(mean) != k or not np.isfinite(mean).all():
            raise PersonaProbeError(
                f"the reference's mean at layer {layer} is {mean.tolist()}; it must be {k} finite "
                f"number{'s' * (k > 1)} (residual-stream units)"
            )
    return checked
