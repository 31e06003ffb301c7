"""The tokens that a direction promotes and suppresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.errors import PersonaProbeError
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class TopTokens(TableResult):
    """The tokens that a direction promotes and suppresses.

    Attributes:
        table: the table of `persona_probe.directions.top_tokens.top_tokens`: one row per layer, side and rank.
        name: the direction's name.
    """

    table: pd.DataFrame
    name: str

    def plot(self, layer: int | None = None) -> go.Figure:
        """Both sides at one layer (by default the last: tokens of early layers say least), with their logits.

        Raises:
            PersonaProbeError: if the layer was not read.
        """
        from persona_probe.figures.tokens import tokens

        layers = self.table["layer"].unique().tolist()
        if layer is not None and layer not in layers:
            raise PersonaProbeError(f"top_tokens did not read layer {layer}; it read {', '.join(map(str, layers))}")
        return tokens(self.table, layer=layers[-1] if layer is None else layer, name=self.name)

    def headline(self) -> str:
        """The strongest token of each side at the last layer."""
        last = self.table[(self.table["layer"] == self.table["layer"].iloc[-1]) & (self.table["rank"] == 1)]
        sides = (f"{side} {token!r}" for side, token in zip(last["side"], last["token"], strict=True))
        return f"{self.name}, layer {last['layer'].iloc[0]}, directly through the unembedding: {', '.join(sides)}"
