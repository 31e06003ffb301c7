"""The result of comparing finders: how well their directions separate, and how far the model moved along them."""

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
from persona_probe.statistics.replication import FAILS

if TYPE_CHECKING:
    import plotly.graph_objects as go


_OVER_RUNS = (Finding.AMPLIFIED.value, Finding.SHARED.value)
_THESE_RUNS = (Finding.ONE_RUN.value, Finding.FEW_RUNS.value)
"""The findings of a direction along which the projection moved beyond its nulls: over runs, or in too few of them."""


@dataclass(frozen=True)
class FinderComparison(TableResult):
    """A comparison of finders.

    Attributes:
        table: one row per ``finder`` and layer: whether it is a ``null``; ``separation`` (AUROC of the projection on
            held-out dialogues) with ``separation_low``, ``separation_high``; ``shift_sd``, ``low_sd``, ``high_sd``,
            ``control_shift_sd``, ``random_sd``, ``isotropic_sd``, ``specificity`` with its interval, ``p_corrected``
            and ``p_runs`` (over all finders and layers) and the ``finding``, all as in `Amplification`;
            ``replication``, ``split_half_cosine`` and ``held_out_auroc`` (``_low``, ``_high``) of the card, on the
            development questions; ``n`` held-out dialogues; and whether the layer is the ``chosen`` one.
        cosines: `cosine_table` of all directions, with classifiers as patterns.
        directions: the directions, by finder.
        amplification: the amplification along all of them.
        layer: the chosen layer.
    """

    table: pd.DataFrame
    cosines: CosineTable
    directions: Mapping[str, Direction]
    amplification: Amplification
    layer: int

    def at_layer(self) -> pd.DataFrame:
        """The rows of the chosen layer, sorted by specificity (the largest first), with the nulls at the end."""
        rows = self.table[self.table["chosen"]]
        return rows.sort_values(["null", "specificity"], ascending=[True, False], ignore_index=True)

    def shown(self) -> pd.DataFrame:
        """The rows of the chosen layer, with the most important columns."""
        columns = ["finder", "null", "separation", "split_half_cosine", "held_out_auroc", "shift_sd", "random_sd"]
        return self.at_layer()[[*columns, "specificity", "finding", "n"]]

    def plot(self) -> go.Figure:
        """A figure of separation, shift and specificity of every finder at the chosen layer, with their nulls."""
        from persona_probe.figures.finders import finders

        return finders(self.table)

    def headline(self) -> str:
        """The verdict."""
        return self.verdict()

    def verdict(self) -> str:
        """A sentence on how many directions, and how many of the nulls, moved more than their nulls.

        The sign of a direction that finds nothing is arbitrary, so for the nulls a reduction counts too.
        """
        rows = self.at_layer()
        rows, nulls = rows[~rows["null"]], rows[rows["null"]]
        fails = int(rows["replication"].eq(FAILS).sum())
        unreliable = f"; {fails} of these directions do not replicate there" if fails else ""
        if rows["control_shift_sd"].isna().all():
            further = int(rows["finding"].eq(Finding.NO_CONTROL.value).sum())
            return (
                f"At layer {self.layer}, {further} of {len(rows)} directions moved further than the available nulls; "
                f"there is no control, so none can be distinguished from what any fine-tuning does{unreliable}."
            )
        few = rows["finding"].isin(_THESE_RUNS)
        moved = rows[few] if few.any() else rows[rows["finding"].isin(_OVER_RUNS)]
        shared = int((rows["finding"] == Finding.SHARED.value).sum())
        fooled = int(nulls["finding"].isin((*_OVER_RUNS, *_THESE_RUNS, Finding.REDUCED.value)).sum())
        what = "are amplified beyond their nulls"
        if few.any():
            one = (rows["finding"] == Finding.ONE_RUN.value).any()
            what = f"moved beyond their nulls in {'one run' if one else 'too few runs to call them amplified'}"
        sentence = f"At layer {self.layer}, {len(moved)} of {len(rows)} directions {what}"
        if len(moved):
            sentence += f"; {_most_specific(moved)}"
        if shared:
            sentence += f"; for {shared} of them, other traits' directions move as much"
        return (
            f"{sentence}{unreliable}; of {len(nulls)} that find nothing by design, {fooled} moved beyond their nulls."
        )


def _most_specific(rows: pd.DataFrame) -> str:
    """Which direction has the largest specificity, and whether it is distinguishable from the others'."""
    best, others = rows.iloc[0], rows.iloc[1:]
    ends = f"[{best['specificity_low']:.1f}, {best['specificity_high']:.1f}]"
    largest = f"the largest specificity is that of {best['finder']} ({best['specificity']:.1f} {ends})"
    overlap = others.loc[others["specificity_high"] >= best["specificity_low"], "finder"].tolist()
    if not overlap:
        return largest
    whose = f"that of {overlap[0]}" if len(overlap) == 1 else f"those of {len(overlap)} others"
    return f"{largest}, whose interval overlaps with {whose}: their order is open"
