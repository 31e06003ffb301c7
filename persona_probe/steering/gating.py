"""Where gates are open: by the scores of the tokens being read, and by what fired earlier in the same dialogues."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.stream.boundary import Boundary
from persona_probe.steering.interventions.change import placed, uncast
from persona_probe.steering.interventions.gate import Gate


class GateLayer:
    """The gates whose probes read the same layer.

    Args:
        model: which model is steered.
        gates: for each setting, its gate at this layer, or None.
    """

    def __init__(self, model: Model, gates: Sequence[Gate | None]) -> None:
        # One more entry, for rows that are not steered.
        weights = np.zeros((len(gates) + 1, model.d_model))
        intercepts, without = np.zeros(len(gates) + 1), np.ones(len(gates) + 1, dtype=bool)
        holds = np.zeros(len(gates) + 1, dtype=bool)
        for number, gate in enumerate(gates):
            if gate is not None:
                weights[number], intercepts[number] = gate.probe(model)
                without[number], holds[number] = False, gate.hold
        self._scores = [torch.from_numpy(weights), torch.from_numpy(intercepts)]
        self._flags = [torch.from_numpy(without), torch.from_numpy(holds)]
        self._hold = bool(holds.any())
        self._fired: tuple[Boundary | None, int, Bool[Tensor, "row one"]] | None = None

    def fires(
        self,
        hidden: Float[Tensor, "row position d_model"],
        offset: int,
        setting: Int[Tensor, "... row"] | None,
        real: Bool[Tensor, "row position"] | None,
        boundary: Boundary | None,
    ) -> Bool[Tensor, "row position"]:
        """Where the gates are open; rows without a gate are always open.

        Args:
            hidden: the stream at this layer.
            offset: position of its first token.
            setting: the setting of each row; None if there is one for all.
            real: the tokens that are not padding; None if there is no padding.
            boundary: the boundary of the batch.
        """
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        self._scores = placed(self._scores, hidden.device, dtype)
        self._flags = placed(self._flags, hidden.device, torch.bool)
        weights, intercepts = (part[0] if setting is None else part[setting] for part in self._scores)
        with uncast(hidden):
            exact = hidden.to(dtype)
            if setting is None:
                fires = exact @ weights + intercepts > 0
            else:
                fires = torch.bmm(exact, weights[:, :, None])[..., 0] + intercepts[:, None] > 0
        without, holds = (part[:1] if setting is None else part[setting] for part in self._flags)
        if self._hold:
            held = self._held(offset, fires if real is None else fires & real, boundary)
            fires = torch.where(holds[:, None], held, fires)
        return fires if setting is None else fires | without[:, None]

    def _held(
        self, offset: int, fires: Bool[Tensor, "row position"], boundary: Boundary | None
    ) -> Bool[Tensor, "row position"]:
        """Where gates are open that stay open after the first token that fired, also in earlier forward passes."""
        if boundary is None or len(boundary.begins) != len(fires):
            raise PersonaProbeError(
                "a gate with hold=True needs to know which dialogue each row is: use model.generate, model.hf.generate "
                "(without beams, one sequence per prompt) or pp.capture, or hold=False"
            )
        held = fires.cumsum(dim=1) > 0
        if offset:
            if self._fired is None or self._fired[0] is not boundary or self._fired[1] != offset:
                raise PersonaProbeError(
                    "a gate with hold=True must read every token once, in order, and this way of generating reads some "
                    "again or not at all: sample or decode greedily, or give hold=False"
                )
            held = held | self._fired[2].to(held.device)
        self._fired = (boundary, offset + fires.shape[1], held[:, -1:])
        return held
