"""Intervening only where a probe fires: conditional realignment."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError, what_is
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import is_whole
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.token_scoring import probe_of
from persona_probe.steering.interventions.change import Change
from persona_probe.steering.interventions.intervention import Intervention, is_finite


class Gate(Intervention):
    """Another intervention, which acts only at tokens at which a probe's score is above a threshold.

    The probe reads the stream before this intervention, at or before the first layer that is intervened on.

    Args:
        inner: the intervention that the gate lets through.
        probes: the probes, one of which decides.
        layer: the layer whose probe decides.
        threshold: threshold of the score ``h . w + b`` (`persona_probe.probes.threshold_at` gives one for a false-alarm
            rate).
        hold: once the probe has fired at a token, intervene at all later tokens of that dialogue too.

    Raises:
        PersonaProbeError: if the probe's layer comes after one that is intervened on.

    >>> import pandas as pd
    >>> import persona_probe as pp
    >>> values = np.array([[[3.0, 0.0]], [[4.0, 1.0]], [[0.0, 0.0]], [[1.0, 1.0]]], dtype=np.float32)
    >>> activations = pp.Activations(values, pd.DataFrame({"id": list("abcd")}), layers=(2,))
    >>> probes = pp.probes.LayerProbes().fit(activations, [True, True, False, False])
    >>> direction = pp.Direction(np.array([[1.0, 0.0]]), (2,), {"name": "evil"})
    >>> pp.steering.Gate(pp.Clamp(direction, layers=2, target=0.0), probes, layer=2)
    Gate(layers=[2], scope='generation', probe_layer=2, threshold=0.0, hold=False, inner_kind='clamp', ...)
    """

    kind = "gate"

    def __init__(
        self,
        inner: Intervention,
        probes: LayerProbes,
        *,
        layer: int,
        threshold: float = 0.0,
        hold: bool = False,
    ) -> None:
        if not isinstance(inner, Intervention) or isinstance(inner, Gate):
            raise PersonaProbeError(f"kind='gate' needs an intervention that it lets through, not {what_is(inner)}")
        super().__init__(inner.layers, inner.scope)
        if not isinstance(probes, LayerProbes):
            raise PersonaProbeError(f"kind='gate' needs LayerProbes that decide, not {what_is(probes)}")
        if not is_whole(layer):
            raise PersonaProbeError(f"layer is {layer!r}; give the number of the layer whose probe decides")
        if not is_finite(threshold):
            raise PersonaProbeError(f"threshold is {threshold!r}; give a finite score")
        first = 0 if isinstance(inner.layers, str) else min(inner.layers, default=0)
        if layer > first:
            raise PersonaProbeError(
                f"the gate's probe reads layer {layer}, after layer {first}, which is already intervened on: give a "
                f"layer up to {first}, or intervene at later layers"
            )
        self.inner, self.probes, self.layer = inner, probes, layer
        self.threshold, self.hold = float(threshold), hold

    @property
    def strength(self) -> float | None:
        """The strength of the inner intervention."""
        return self.inner.strength

    def with_strength(self, strength: float) -> Gate:
        """The same gate on the inner intervention at another strength."""
        return self._around(self.inner.with_strength(strength))

    def along(self, null: Direction) -> Gate:
        """The same gate on the inner intervention's null."""
        return self._around(self.inner.along(null))

    def _around(self, inner: Intervention) -> Gate:
        return Gate(inner, self.probes, layer=self.layer, threshold=self.threshold, hold=self.hold)

    def parameters(self) -> dict[str, Any]:
        """The probe, and the kind and parameters of the inner intervention."""
        inner = {"inner_kind": self.inner.kind, **self.inner.parameters()}
        return {"probe_layer": self.layer, "threshold": self.threshold, "hold": self.hold, **inner}

    def check(self, model: Model, *, allow_unrelated: bool = False) -> None:
        """Raise if the probes or the inner intervention do not fit the model."""
        self.inner.check(model, allow_unrelated=allow_unrelated)
        probe_of(self.probes, model, self.layer, allow_unrelated)

    def probe(self, model: Model) -> tuple[Float[np.ndarray, "... d_model"], float]:
        """Weights, and intercept less the threshold, so that the gate is open where the score is above 0."""
        weights, intercept = probe_of(self.probes, model, self.layer, True)
        return weights.double().numpy(), float(intercept) - self.threshold

    def at(self, layer: int) -> Change:
        """The change of the inner intervention."""
        return self.inner.at(layer)
