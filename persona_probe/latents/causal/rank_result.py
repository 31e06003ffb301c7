"""The result of steering latents one by one: the effect of each, and of matched random latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

ALPHA = 0.05
_SHOWN = (
    "rank",
    "latent",
    "kind",
    "amount",
    "em_rate",
    "em_low",
    "em_high",
    "n",
    "coherent",
    "effect",
    "null_effect",
    "q",
)


@dataclass(frozen=True)
class LatentEffects(Result):
    """The causal effect of each latent on the EM rate.

    Attributes:
        table: one row per latent, the best first: ``rank`` (by effect; none if nothing was measured), ``latent``,
            ``fell`` (training silences it), ``kind`` and ``amount`` (in units of activation) of the edit, ``factor`` x
            ``level`` = amount, ``em_rate`` with ``em_low`` and ``em_high``, ``n`` answers that count, ``coherent`` with
            its interval, ``failures`` (answers that the judge could not score), ``effect`` (change of the EM rate from
            the unsteered answers to the same questions) with ``effect_low`` and ``effect_high``, ``null_effect`` (of
            its matched latents together) with its interval and ``null_coherent``, ``p`` (of differing from matched
            latents; without any, of no change, by sign flips of questions), ``q`` (Benjamini and Hochberg 1995) and
            ``note``. All of it is of this one model: another fine-tuning run may differ.
        unsteered: ``em_rate``, ``coherent`` and so on of the model as it is.
        development: every strength tried on the development questions; ``enough`` says whether it was coherent enough.
        nulls: one row per matched latent: ``latent``, ``matched`` (the latent along whose decoder row the displacement
            went), rates and ``effect``, and how the matched latent's mean displacement and firing frequency compare
            with the latent's (``displacement_ratio``, ``frequency_ratio``).
        answers: the judged answers to ``questions``; ``latent`` and ``matched`` say what was steered.
        source: goal, definition, model, SAE, the statistics' model and settings.
    """

    table: pd.DataFrame
    unsteered: Mapping[str, Any]
    development: pd.DataFrame
    nulls: pd.DataFrame
    answers: pd.DataFrame
    source: Mapping[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """A copy of ``table``, with the goal."""
        return self.table.assign(goal=self.source["goal"])

    def plot(self) -> go.Figure:
        """A figure of each latent's effect and that of its matched latents."""
        from persona_probe.figures.latents import latent_effects

        return latent_effects(self.to_frame())

    def headline(self) -> str:
        """The verdict."""
        return self.verdict()

    def shown(self) -> pd.DataFrame:
        """Effects, their nulls and q."""
        return self.table[list(_SHOWN)]

    @property
    def found(self) -> pd.DataFrame:
        """The rows whose effect has the goal's sign and is larger than that of matched latents (q < 0.05)."""
        sign = 1.0 if self.source["goal"] == "induce" else -1.0
        table = self.table
        beyond = sign * (table["effect"] - table["null_effect"].fillna(0.0)) > 0
        return table[(table["q"] < ALPHA) & (sign * table["effect"] > 0) & beyond]

    def verdict(self) -> str:
        """A sentence on how many latents have the effect, and on the best one."""
        goal, found = self.source["goal"], self.found
        verb = "induces" if goal == "induce" else "suppresses"
        tested = int(self.table["effect"].notna().sum())
        left = len(self.table) - tested
        line = f"{len(found)} of {tested} latents {verb if len(found) == 1 else goal} misalignment"
        against = "matched random latents" if len(self.nulls) else "no change; there were no matched latents"
        line += f" (q < {ALPHA} against {against}{f'; {left} more could not be tested' * (left > 0)})"
        ranked = self.table[self.table["rank"].notna()]
        if ranked.empty:
            return f"{line}: none could be steered and stay coherent"
        best = found.iloc[0] if len(found) else ranked.iloc[0]
        what = "ablated" if best["kind"] == "ablate" else f"clamped to {best['amount']:.3g}"
        line += (
            f"; {'best' if len(found) else 'the largest effect, not distinguishable from them'}: latent "
            f"{best['latent']} {what}, EM rate {self.unsteered['em_rate']:.0%} -> {best['em_rate']:.1%}, coherent "
            f"{self.unsteered['coherent']:.0%} -> {best['coherent']:.0%}"
        )
        return f"{line}; its matched latents change the rate by {best['null_effect']:+.1%}" if len(self.nulls) else line
