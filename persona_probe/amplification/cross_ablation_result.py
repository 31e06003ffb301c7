"""EM rates of organisms with each other's directions clamped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go


NONE, CLAMP, RANDOM = "none", "clamp", "random clamp"


@dataclass(frozen=True)
class CrossAblation(TableResult):
    """The EM rate of each organism with each direction clamped.

    Attributes:
        table: columns ``organism``, ``direction`` (None: unsteered), ``layer``, ``intervention`` (``none``, ``clamp``,
            ``random clamp``), the EM rate ``value`` with its 95 % interval ``low`` to ``high`` over questions (and for
            ``random clamp`` also over draws), ``n`` answers that count, and ``coherent``, the share of coherent
            answers.
    """

    table: pd.DataFrame

    def plot(self) -> go.Figure:
        """A figure of the EM rates of every organism: unsteered, clamped, and moved as far along random directions."""
        from persona_probe.figures.cross_ablation import cross_ablation as draw

        return draw(self.table)

    def headline(self) -> str:
        """The range of EM rates under each kind of intervention."""
        kinds = {NONE: "unsteered", CLAMP: "clamped", RANDOM: "random"}
        ranges = []
        for kind, name in kinds.items():
            rates = self.table.loc[self.table["intervention"] == kind, "value"].dropna()
            if len(rates):
                ranges.append(f"{name} {rates.min():.1%} to {rates.max():.1%}")
        return f"EM rates of {self.table['organism'].nunique()} organisms: {', '.join(ranges) or 'none was measured'}"
