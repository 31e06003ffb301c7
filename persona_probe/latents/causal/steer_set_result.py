"""The result of steering a set of latents, and random sets that match it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SHOWN = (
    "intervention",
    "draw",
    "em_rate",
    "em_low",
    "em_high",
    "n",
    "coherent",
    "effect",
    "effect_low",
    "effect_high",
)


@dataclass(frozen=True, eq=False)
class SetEffect(TableResult):
    """The causal effect of a set of latents on the EM rate.

    Attributes:
        table: rows ``unsteered``, ``set``, ``matched set`` (one for each ``draw``) and ``matched sets`` (all together)
            with ``intervention``, ``draw``, ``latents``, ``em_rate`` with ``em_low`` and ``em_high`` (95 %, over
            questions and draws), ``n`` answers that count, ``coherent`` with its interval, ``failures`` (answers that
            the judge could not score), and ``effect``, the change of the EM rate from unsteered, paired over questions,
            with its interval.
        source: the model, SAE, kind of the edit, definition, judge and seed.
    """

    table: pd.DataFrame
    source: Mapping[str, Any]

    def row(self, intervention: str) -> pd.Series[Any]:
        """The first row of ``unsteered``, ``set``, ``matched set`` or ``matched sets``."""
        return self.table[self.table["intervention"] == intervention].iloc[0]

    def plot(self) -> go.Figure:
        """A figure of the EM rate and coherence, with those of the matched sets."""
        from persona_probe.figures.steered_rates import latent_sets

        return latent_sets(self.table)

    def headline(self) -> str:
        """The model, and the verdict."""
        return f"{self.source['model']}: {self.verdict()}"

    def verdict(self) -> str:
        """A sentence on the effect of the set, and on that of matched sets."""
        plain, steered = self.row("unsteered"), self.row("set")
        line = (
            f"{self.source['kind']} of {len(steered['latents'])} latents together: EM rate "
            f"{plain['em_rate']:.0%} -> {steered['em_rate']:.0%} [{steered['em_low']:.0%}, {steered['em_high']:.0%}] "
            f"(n = {steered['n']:.0f}), coherent {plain['coherent']:.0%} -> {steered['coherent']:.0%}"
        )
        if not (self.table["intervention"] == "matched sets").any():
            return f"{line}; no matched sets were measured"
        null = self.row("matched sets")
        return (
            f"{line}; {self.table['draw'].nunique()} matched sets change it by {100 * null['effect']:+.1f} points "
            f"[{100 * null['effect_low']:+.1f}, {100 * null['effect_high']:+.1f}]"
        )

    def shown(self) -> pd.DataFrame:
        """Rates and effects."""
        return self.table[[name for name in _SHOWN if name in self.table]]
