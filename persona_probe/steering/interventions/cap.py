"""Keeping the projection within bounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.errors import NUMBER, PersonaProbeError, check_types
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.change import Change, LinearChange
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.interventions.intervention import Targets, by_layer, value_at


class Cap(Directed):
    """Caps the projection ``h . v / ||v||`` at ``lower`` and ``upper``; in between nothing is changed.

    Activation capping (Lu et al. 2026, "The assistant axis", section 5) keeps the projection in its usual range:
    `at_percentiles` takes the bounds from a reference.

    Args:
        direction: the direction that is projected on.
        layers: the layers at which it acts.
        lower: smallest projection, in residual-stream units, one for all layers or one per layer; None for no bound.
        upper: largest projection, in the same form.
        scope: which tokens.
        along: for the null: the displacement is made along this direction instead; one layer only.

    Raises:
        PersonaProbeError: if there is no bound, or the lower one is above the upper one.

    >>> import pandas as pd
    >>> import persona_probe as pp
    >>> direction = pp.Direction(np.array([[3.0, 4.0]]), (2,), {"name": "evil"})
    >>> usual = pp.Activations(np.array([[[5.0, 0.0]], [[10.0, 0.0]]]), pd.DataFrame({"id": ["a", "b"]}), (2,))
    >>> pp.steering.Cap.at_percentiles(direction, layers=2, reference=usual, upper=50).upper
    {2: 4.5}
    """

    kind = "cap"
    direction: Direction

    def __init__(
        self,
        direction: Direction,
        layers: Layers,
        *,
        lower: Targets | None = None,
        upper: Targets | None = None,
        scope: str | Scope = "generation",
        along: Direction | None = None,
    ) -> None:
        super().__init__(direction, layers, scope, null=along)
        if lower is None and upper is None:
            raise PersonaProbeError("kind='cap' needs upper=, lower= or both (residual-stream units)")
        self.lower = None if lower is None else by_layer(lower, "lower")
        self.upper = None if upper is None else by_layer(upper, "upper")
        lows, highs = _each(self.lower, -np.inf), _each(self.upper, np.inf)
        for layer in {*lows, *highs}:
            low, high = (side.get(layer, side.get(None, end)) for side, end in ((lows, -np.inf), (highs, np.inf)))
            if low > high:
                where = "" if layer is None else f" at layer {layer}"
                raise PersonaProbeError(f"the lower bound{where}, {low:g}, is above the upper one, {high:g}")

    @classmethod
    def at_percentiles(
        cls,
        direction: Direction,
        layers: Layers,
        reference: Activations,
        *,
        lower: float | None = None,
        upper: float | None = None,
        scope: str | Scope = "generation",
    ) -> Cap:
        """A cap with bounds at percentiles of the reference's projections.

        Args:
            direction: the direction that is projected on.
            layers: the layers at which it acts; for ``"all"``, the reference must have all layers of the model.
            reference: activations in the usual range, captured with ``reduce="tokens"``, since tokens are capped, and
                their projections spread more widely than those of dialogue means.
            lower: percentile from 0 to 100; None for no lower bound.
            upper: percentile from 0 to 100; None for no upper bound.
            scope: which tokens.

        Raises:
            PersonaProbeError: for a percentile outside 0 to 100, or a layer that was not read.
        """
        check_types(
            direction=(direction, Direction),
            reference=(reference, Activations),
            lower=(lower, NUMBER, None),
            upper=(upper, NUMBER, None),
        )
        named = cls(direction, layers, upper=0.0).layers
        wanted = reference.layers if isinstance(named, str) else named
        for name, percentile in {"lower": lower, "upper": upper}.items():
            if percentile is not None and not 0 <= percentile <= 100:
                raise PersonaProbeError(f"{name} is the percentile {percentile}; it must be between 0 and 100")

        def bound(percentile: float | None) -> dict[int, float] | None:
            if percentile is None:
                return None
            units = {layer: direction.at(layer) / np.linalg.norm(direction.at(layer)) for layer in wanted}
            return {
                layer: float(np.percentile(reference.at(layer) @ unit, percentile)) for layer, unit in units.items()
            }

        return cls(direction, layers, lower=bound(lower), upper=bound(upper), scope=scope)

    def along(self, null: Direction) -> Cap:
        """The same displacement at every token, along ``null``."""
        return Cap(self.direction, self.layers, lower=self.lower, upper=self.upper, scope=self.scope, along=null)

    def parameters(self) -> dict[str, Any]:
        """Direction and bounds."""
        return {**super().parameters(), "lower": self.lower, "upper": self.upper}

    def at(self, layer: int) -> Change:
        """The change that brings the projection within the bounds."""
        low = -np.inf if self.lower is None else value_at(self.lower, layer, "lower")
        high = np.inf if self.upper is None else value_at(self.upper, layer, "upper")
        lower, upper = (torch.tensor([bound], dtype=torch.float64) for bound in (low, high))
        return LinearChange.setting(self.read_vectors(layer), lower, upper, 1.0, self.write_vectors(layer))


def _each(bound: Mapping[int, float] | float | None, none: float) -> dict[int | None, float]:
    """A bound by layer, with the key None if it is one for all layers."""
    if isinstance(bound, Mapping):
        pairs: Iterable[tuple[int | None, float]] = bound.items()
        return dict(pairs)
    return {None: none if bound is None else bound}
