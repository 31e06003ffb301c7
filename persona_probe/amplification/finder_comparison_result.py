"""Finders head to head: what was found, how well it separates, and how far it moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.amplification.amplification_result import Amplification
from persona_probe.amplification.verdict import Finding
from persona_probe.directions.cosines import CosineTable
from persona_probe.directions.direction import Direction
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class FinderComparison(TableResult):
    """Finders head to head.

    Attributes:
        table: one row a ``finder`` and layer: whether it is a ``null``; ``separation`` (AUROC of the projection on
            held-out dialogues) with ``separation_low``, ``separation_high``; ``shift_sd``, ``low_sd``, ``high_sd``,
            ``control_shift_sd``, ``random_sd``, ``isotropic_sd``, ``specificity`` with its interval, ``p_corrected``
            (over all finders and layers) and what they come to (``finding``), all as in `Amplification`;
            ``split_half_cosine`` of the card; ``n`` held-out dialogues; and whether the layer is the ``chosen`` one.
        cosines: `cosine_table` of all directions, classifiers as patterns.
        directions: what was found, by finder.
        amplification: in full.
        layer: the chosen layer.
    """

    table: pd.DataFrame
    cosines: CosineTable
    directions: Mapping[str, Direction]
    amplification: Amplification
    layer: int

    def at_layer(self) -> pd.DataFrame:
        """The rows of the chosen layer, the largest specificity first, nulls last."""
        rows = self.table[self.table["chosen"]]
        return rows.sort_values(["null", "specificity"], ascending=[True, False], ignore_index=True)

    def shown(self) -> pd.DataFrame:
        """The chosen layer's rows, and what of them is read first."""
        return self.at_layer()[["finder", "null", "separation", "shift_sd", "random_sd", "specificity", "finding", "n"]]

    def plot(self) -> go.Figure:
        """Separation, shift and specificity of every finder at the chosen layer, beside their nulls."""
        from persona_probe.figures.finders import finders

        return finders(self.table)

    def headline(self) -> str:
        """How many finders found something that was amplified, and how many of the nulls did."""
        rows = self.at_layer()
        amplified = rows["finding"] == Finding.AMPLIFIED.value
        counts = [f"{int(amplified[kind].sum())} of {int(kind.sum())}" for kind in (~rows["null"], rows["null"])]
        return (
            f"layer {self.layer}: {counts[0]} finders' directions were amplified beyond their nulls, {counts[1]} nulls'"
        )
