"""AUROCs of probes trained on one part of the dialogues and tested on another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from persona_probe.errors import PersonaProbeError
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class TransferMatrix(TableResult):
    """How far probes of one part carry over to the others.

    Attributes:
        table: one row per layer and pair: ``train``, ``test``, ``layer``, AUROC as ``value``, ``low``, ``high``, ``n``,
            ``method`` (for NaN: why there is no AUROC), ``shared_groups`` (how many groups are in both parts; missing
            without groups) and ``grouping``.
    """

    table: pd.DataFrame

    @property
    def layers(self) -> list[int]:
        """The layer numbers, in order."""
        return [int(layer) for layer in self.table["layer"].unique()]

    def at(self, layer: int) -> pd.DataFrame:
        """AUROCs of one layer as a square table: trained on the row's part, tested on the column's.

        Raises:
            PersonaProbeError: if that layer was not probed.
        """
        rows = self.table[self.table["layer"] == self._checked(layer)]
        names = rows["train"].unique().tolist()
        values = rows.set_index(["train", "test"])["value"]
        return pd.DataFrame([[values[one, two] for two in names] for one in names], index=names, columns=names)

    def shown(self) -> pd.DataFrame:
        """The table without the columns that say how the intervals were made."""
        return self.table.drop(columns=["method", "level", "grouping"])

    def plot(self, layer: int | None = None) -> go.Figure:
        """The matrix of one layer; by default the one whose probes do best on their own part, cross-validated.

        Raises:
            PersonaProbeError: if that layer was not probed.
        """
        from persona_probe.figures.transfer import transfer

        return transfer(self.table, layer=self._checked(self._best if layer is None else layer))

    def headline(self) -> str:
        """The range of AUROCs on the probes' own parts and on others, at the layer that `plot` shows."""
        rows = self.table[self.table["layer"] == self._best]
        diagonal = rows["train"] == rows["test"]
        ranges = (
            f"{values.min():.2f} to {values.max():.2f} on {where}"
            for where, values in (("their own part", rows["value"][diagonal]), ("others", rows["value"][~diagonal]))
            if values.notna().any()
        )
        parts = rows["train"].nunique()
        return f"probes of {parts} parts at layer {self._best}: AUROC {', '.join(ranges)} (chance 0.5)"

    @property
    def _best(self) -> int:
        """The layer whose probes do best on the diagonal: chosen there, so that the other cells were not chosen."""
        diagonal = self.table[self.table["train"] == self.table["test"]]
        mean = diagonal.groupby("layer", sort=False)["value"].mean()
        return self.layers[0] if mean.isna().all() else self.layers[int(np.nanargmax(mean.to_numpy()))]

    def _checked(self, layer: int) -> int:
        if layer not in self.layers:
            raise PersonaProbeError(f"layer {layer} was not probed; probed: {', '.join(map(str, self.layers))}")
        return layer
