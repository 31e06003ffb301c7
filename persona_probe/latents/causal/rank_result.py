"""The result of steering latents one by one: the effect of each, and of matched random latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import stdtr
from scipy.stats import false_discovery_control

from persona_probe.result import Result
from persona_probe.statistics.score_intervals import normal_quantile

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
            its matched latents together) with its interval and ``null_coherent``, ``p``, ``q`` (Benjamini and Hochberg
            1995) and ``note``.
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


def p_values(table: pd.DataFrame, nulls: pd.DataFrame) -> pd.Series[float]:
    """The two-sided p of each latent's effect under the null that it is one more draw of its matched latents.

    Student's t is the effect minus the mean effect of its matched latents, over the spread of matched latents around
    their means. The nulls of all latents together give that spread and its degrees of freedom, because a rank among the
    nulls could not fall below 1 / (nulls + 1), which hides a single causal latent after correction. The spread is at
    least that of the latent's own nulls, and the sampling error of its own EM rate. Without nulls the effect is
    compared with zero.

    Args:
        table: columns ``latent``, ``effect``, ``effect_low``, ``effect_high``, ``em_low`` and ``em_high``.
        nulls: columns ``latent`` and ``effect``, one row per matched latent.

    Returns:
        One p per row of ``table``; NaN if the effect or its null is missing.
    """
    two_sided = 2 * normal_quantile(0.95)
    if nulls.empty:
        errors = (table["effect_high"] - table["effect_low"]) / two_sided
        return _two_sided(table["effect"] / errors, np.inf)
    usable = nulls.dropna(subset=["effect"])
    groups = usable.groupby("latent")["effect"]
    freedom = len(usable) - groups.ngroups
    if freedom < 1:
        return pd.Series(np.nan, index=table.index)
    together = float(((usable["effect"] - groups.transform("mean")) ** 2).sum()) / freedom
    of_latent = table["latent"].map(groups.var()).fillna(0.0)
    sampling = ((table["em_high"] - table["em_low"]) / two_sided) ** 2
    variance = np.maximum(np.maximum(of_latent, together), sampling)
    distance = table["effect"] - table["latent"].map(groups.mean())
    return _two_sided(distance / np.sqrt(variance * (1 + 1 / table["latent"].map(groups.size()))), freedom)


def corrected(p: pd.Series[float]) -> pd.Series[float]:
    """Benjamini and Hochberg's q of the p values that are not NaN."""
    q, finite = p.copy(), p.notna()
    if finite.any():
        q[finite] = false_discovery_control(p[finite].to_numpy())
    return q


def _two_sided(t: pd.Series[float], freedom: float) -> pd.Series[float]:
    return pd.Series(2 * stdtr(freedom, -np.abs(t.to_numpy(dtype=float))), index=t.index)
