"""Where gates are open: scores of the tokens being read, and what fired earlier in the same dialogues."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.steering.interventions.gate import Gate


class GateState:
    """The decisions of all gates in the forward that is running.

    Attributes:
        open: of each gate, by its number, ``(row, position)``.
    """

    def __init__(self, model: Model, gates: Sequence[Gate]) -> None:
        self._gates = list(gates)
        self._probes = [gate.probe(model) for gate in gates]
        self._model = model
        self._fired: dict[int, tuple[object, int, Tensor]] = {}
        self.open: dict[int, Bool[Tensor, "row position"]] = {}

    def read(self, layer: int, offset: int, hidden: Tensor) -> None:
        """Decide all gates whose probe reads this layer."""
        for number, gate in enumerate(self._gates):
            if gate.layer != layer:
                continue
            weights, intercept = self._probes[number]
            if weights.device != hidden.device:
                self._probes[number] = (weights.to(hidden.device), intercept)
                weights = self._probes[number][0]
            fires = hidden.float() @ weights + intercept > 0
            self.open[number] = self._held(number, offset, fires) if gate.hold else fires

    def _held(self, number: int, offset: int, fires: Bool[Tensor, "row position"]) -> Bool[Tensor, "row position"]:
        """Open from the first token that fired on, also where that token was read in an earlier forward."""
        boundary = self._model.boundary
        if boundary is None or len(boundary.begins) != len(fires):
            raise PersonaProbeError(
                "a gate that holds needs to know which dialogue each row is: use model.generate, model.hf.generate "
                "(without beams, one sequence a prompt) or pp.capture, or hold=False"
            )
        begins = torch.from_numpy(boundary.begins).to(fires.device)[:, None]
        position = torch.arange(offset, offset + fires.shape[1], device=fires.device)[None, :]
        fires = fires & (position >= begins)
        before = self._fired.get(number)
        if offset == 0:
            earlier = torch.zeros_like(fires[:, :1])
        elif before is None or before[0] is not boundary or before[1] != offset:
            raise PersonaProbeError(
                "a gate that holds must read every token once, in order, and this way of generating reads some again "
                "or not at all: sample or decode greedily, or hold=False"
            )
        else:
            earlier = before[2]
        held = fires.long().cumsum(dim=1).bool() | earlier
        self._fired[number] = (boundary, offset + fires.shape[1], held[:, -1:])
        return held

    def fires(
        self, gates: Sequence[int], settings: Int[np.ndarray, "... row"] | None, columns: slice
    ) -> Bool[Tensor, "row position"] | None:
        """Where the settings' gates are open: ``gates`` holds each setting's, -1 for none; None if there is no gate."""
        if all(gate < 0 for gate in gates):
            return None
        if settings is None:
            return self.open[gates[0]][:, columns]
        each = [gates[setting] for setting in settings]
        like = next(iter(self.open.values()))[:, columns]
        rows = [
            torch.ones_like(like[row]) if gate < 0 else self.open[gate][row, columns] for row, gate in enumerate(each)
        ]
        return torch.stack([row.to(like.device) for row in rows])
