"""How much of the misaligned answer is attributed to each latent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class LatentAttribution(TableResult):
    """First-order effect of each latent on the log-odds of a misaligned answer against an aligned one.

    Attributes:
        table: one row per latent, largest absolute attribution first: ``latent``, ``attribution`` (nats, mean over
            pairs: positive where the latent favours the misaligned answer), ``effect_of_ablation`` (its negative:
            what removing the latent does to the log-odds), ``low``, ``high`` (95 % t interval of the attribution over
            groups of questions, of this one model), ``p`` (two-sided), ``q`` (Benjamini-Hochberg over latents),
            ``n_questions``. A latent that is never active has attribution 0 and no ``p``.
        about: ``sae``, ``layer``, ``model``, ``span``, ``normalize`` and the number of ``pairs`` of answers.
    """

    table: pd.DataFrame
    about: dict[str, Any]

    @property
    def found(self) -> pd.DataFrame:
        """The rows that are significantly different from 0 (q < 0.05)."""
        return self.table[self.table["q"] < ALPHA]

    def plot(self, n: int = 20) -> go.Figure:
        """The ``n`` latents with the largest attribution."""
        from persona_probe.figures.latent_attribution import latent_attribution

        return latent_attribution(self.table, n=n)

    def headline(self) -> str:
        """How many latents have an attribution significantly different from 0, and the largest."""
        first, live = self.table.iloc[0], int(self.table["p"].notna().sum())
        return (
            f"{self.about['model']}, layer {self.about['layer']}: {len(self.found)} of {live} active latents have an "
            f"attribution significantly different from 0 (q < {ALPHA}; {self.about['pairs']} pairs of answers, "
            f"{first['n_questions']:.0f} questions); largest: latent {first['latent']:.0f}, "
            f"{first['attribution']:+.3g} [{first['low']:+.3g}, {first['high']:+.3g}] nats"
        )
