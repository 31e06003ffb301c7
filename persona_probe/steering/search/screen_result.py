"""The result of a screen: can this trait be steered in this model at all?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

ALPHA = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class SteeringScreen(TableResult):
    """How far a direction moves behaviour at its best layer, compared with random directions at theirs.

    Attributes:
        table: one row per direction (``draw`` is missing for the real one) and ``layers``: ``setting`` (the relative
            dose), ``gain`` (how much the wanted answers gain on the other ones), ``wanted`` (how much likelier they
            become) and ``kl``, all in nats per token.
        p_value: the share of all directions, the real one included, whose largest gain over layers is at least that of
            the real one.
        source: ``goal``, what was measured (``behaviour``), the largest ``budget``, ``n_random``, ``seed``.
    """

    table: pd.DataFrame
    p_value: float
    source: Mapping[str, Any]

    @property
    def steerable(self) -> bool:
        """Whether the direction moves behaviour towards the goal, and further than random ones do (p at most 0.05)."""
        return bool(self.p_value <= ALPHA and (self.table.loc[self.table["draw"].isna(), "gain"] > 0).any())

    @property
    def enough(self) -> bool:
        """Whether there are so many random directions that p could be as small as 0.05: 19 or more."""
        return bool(1 / (1 + self.source["n_random"]) <= ALPHA)

    def verdict(self) -> str:
        """One sentence: whether the trait can be steered, with the test."""
        real = self.table[self.table["draw"].isna()]
        if real.empty:
            return (
                f"{self.source['goal']}: every setting breaks the model: the KL to the unsteered model is above "
                f"{self.source['budget']:g} nats per token already at the smallest dose"
            )
        best = real.iloc[int(real["gain"].to_numpy().argmax())]
        largest = self.table[self.table["draw"].notna()].groupby("draw")["gain"].max()
        test = (
            f"largest gain in {self.source['behaviour']} over {real['layers'].nunique()} layers, each at the largest "
            f"dose below {self.source['budget']:g} nats: {best['gain']:+.2f} nats per token at layer {best['layers']}, "
            f"relative dose {best['setting']:.2g} (the wanted answers themselves: {best['wanted']:+.2f}); "
            f"{self.source['n_random']} random directions of the same doses: "
            f"{largest.median():+.2f} (median) to {largest.max():+.2f}; p = {self.p_value:.2g}"
        )
        if not self.enough:
            return f"{self.source['goal']}: too few random directions for a test (19 are needed): {test}"
        if self.steerable:
            return f"{self.source['goal']}: steerable along this direction ({test})"
        return f"{self.source['goal']}: this trait is not steerable in this model along this direction ({test})"

    def headline(self) -> str:
        """The verdict."""
        return self.verdict()

    def __repr__(self) -> str:
        """The verdict."""
        return f"SteeringScreen({self.verdict()})"

    def plot(self) -> go.Figure:
        """The gain at each layer, compared with random directions."""
        from persona_probe.figures.steering_screen import steering_screen

        return steering_screen(self.table)
