"""How much of a layer an SAE keeps: what measuring it left."""

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
        table: one row a model: ``model``, ``fvu`` (fraction of variance unexplained), ``l0`` (latents active at a
            token), ``dead`` (share of latents that are active at none of these tokens), ``tokens``; where losses were
            measured also ``ce`` (mean next-token cross-entropy in nats after the span's tokens), ``ce_sae``,
            ``ce_zero``, ``ce_mean``, ``ce_recovered``, ``ce_recovered_mean`` (NaN where no token follows, and the
            shares also where the layer is worth nothing); and ``verdict``, in words.
        about: ``sae``, ``layer`` and ``span``.
    """

    table: pd.DataFrame
    about: dict[str, Any]

    def plot(self) -> go.Figure:
        """Next-token loss with the layer left alone, reconstructed, and replaced by nothing."""
        from persona_probe.figures.reconstruction import reconstruction

        return reconstruction(self.table)

    def headline(self) -> str:
        """Each model's verdict."""
        said = "; ".join(
            f"{row['model']}: {row['verdict']} ({1 - row['fvu']:.1%} of variance, {row['tokens']:,} tokens)"
            for row in self.table.to_dict("records")
        )
        return f"{self.about['sae']}, layer {self.about['layer']}: {said}"
