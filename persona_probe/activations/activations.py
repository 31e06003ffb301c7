"""The container that everything downstream reads: one reduced vector a dialogue and layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.errors import PersonaProbeError

IDENTITY_COLUMNS = ("id", "question", "group", "seed")


@dataclass(frozen=True)
class Activations:
    """Residual-stream activations, reduced over a span of each dialogue.

    Attributes:
        values: ``(dialogue, layer, d_model)``, float32.
        table: one row a dialogue: ``id``, ``question``, ``group``, ``seed``, ``n_tokens`` and the dialogue's labels.
        layers: the layer numbers along axis 1.
        source: where they come from: ``model``, ``model_hash``, ``template_hash``, ``span``, ``reduce``,
            ``layer_convention``.
    """

    values: Float[np.ndarray, "dialogue layer d_model"]
    table: pd.DataFrame
    layers: tuple[int, ...]
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse containers whose parts disagree, and values that are not finite."""
        if self.values.ndim != 3 or self.values.shape[:2] != (len(self.table), len(self.layers)):
            raise PersonaProbeError(
                f"activations of shape {self.values.shape} do not match {len(self.table)} dialogues and "
                f"{len(self.layers)} layers; expected (dialogue, layer, d_model)"
            )
        finite = np.isfinite(self.values).all(axis=2)
        if not finite.all():
            row, layer = np.argwhere(~finite)[0]
            raise PersonaProbeError(
                f"activations of dialogue {self.table['id'].iloc[row]!r} at layer {self.layers[layer]} are not finite "
                f"({int((~finite).any(axis=1).sum())} dialogues affected); load the model in float32 or bfloat16"
            )

    def __len__(self) -> int:
        """Number of dialogues."""
        return len(self.table)

    def where(self, keep: Sequence[bool] | pd.Series | np.ndarray) -> Activations:
        """The dialogues for which ``keep`` (one truth value a dialogue) holds."""
        mask = np.asarray(keep, dtype=bool)
        if mask.shape != (len(self),):
            raise PersonaProbeError(f"where: got {mask.shape} truth values for {len(self)} dialogues")
        return replace(self, values=self.values[mask], table=self.table[mask].reset_index(drop=True))

    def at(self, layer: int) -> Float[np.ndarray, "dialogue d_model"]:
        """The activations of one layer."""
        if layer not in self.layers:
            raise PersonaProbeError(f"layer {layer} was not captured; captured: {', '.join(map(str, self.layers))}")
        return self.values[:, self.layers.index(layer)]
