"""The result of measuring how well an SAE reconstructs its layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Reconstruction(TableResult):
    """How well an SAE reconstructs its layer, in one or several models.

    Attributes:
        table: one row per model: ``model``, ``fvu`` (fraction of variance unexplained), ``l0`` (latents active at a
            token), ``dead`` (share of latents that are active at none of these tokens), ``tokens``; if losses were
            measured also ``ce`` (mean next-token cross-entropy in nats after the span's tokens), ``ce_sae``,
            ``ce_zero``, ``ce_mean``, ``ce_recovered``, ``ce_recovered_mean`` (NaN if no token follows, and the shares
            also if the layer has no effect); and ``verdict``, in words.
        about: ``sae``, ``layer`` and ``span``.
    """

    table: pd.DataFrame
    about: dict[str, Any]

    def plot(self) -> go.Figure:
        """A figure of the next-token loss with the layer as it is, reconstructed, and replaced by nothing."""
        from persona_probe.figures.reconstruction import reconstruction

        return reconstruction(self.table)

    def headline(self) -> str:
        """The verdict on each model."""
        verdicts = "; ".join(
            f"{row['model']}: {row['verdict']} ({1 - row['fvu']:.1%} of variance, {row['tokens']:,} tokens)"
            for row in self.table.to_dict("records")
        )
        return f"{self.about['sae']}, layer {self.about['layer']}: {verdicts}"
