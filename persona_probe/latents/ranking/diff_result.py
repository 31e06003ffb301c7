"""Latents ranked by how far they moved, and what can be concluded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd

from persona_probe.errors import PersonaProbeError
from persona_probe.latents.ranking.run_null import controls_needed
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

Which = Literal["both", "up", "down"]
_SHOWN = (
    *("latent", "finding", "before", "after", "change_sd", "low_sd", "high_sd"),
    *("control_sd", "specificity", "q", "p_runs"),
)


class Moved(StrEnum):
    """What can be said about a latent's change.

    ``ROSE`` and ``FELL``: the change is significantly different from that of every control (false-discovery rate over
    latents), goes at least ``least_sd`` beyond the nearest other run, and further than benign runs take any latent (p
    over runs). ``ROSE_FEW`` and ``FELL_FEW``: the same, and larger than that of any latent under a control; but a
    benign run would pass as often as 1 in K + 1 with K controls, and there are too few for ``alpha``. ``ROSE_ALONE``
    and ``FELL_ALONE``: there is no control, and zero takes its place. The others say which condition fails first.
    """

    ROSE = "rose"
    FELL = "fell"
    ROSE_FEW = "rose; too few controls"
    FELL_FEW = "fell; too few controls"
    ROSE_ALONE = "rose; no control"
    FELL_ALONE = "fell; no control"
    CONTROL = "no more than latents move under the control"
    SMALL = "a small change"
    UNDETECTED = "no significant difference"
    SILENT = "silent in all models"


UP = (Moved.ROSE, Moved.ROSE_FEW, Moved.ROSE_ALONE)
DOWN = (Moved.FELL, Moved.FELL_FEW, Moved.FELL_ALONE)


@dataclass(frozen=True)
class LatentTable(TableResult):
    """Every latent of an SAE, before and after, the one that moved furthest (in SD) first.

    Attributes:
        table: one row per latent. ``latent``; ``before``, ``after``, ``control``: mean activations (over dialogues,
            each the mean of its tokens; ``control`` is the control nearest to after); ``change`` = after - before with
            its 95 % interval ``low`` to ``high``, in units of activation; ``change_sd``, ``low_sd``, ``high_sd``: the
            same divided by ``sd``, the standard deviation over dialogues (of before, after and all controls, pooled:
            Cohen's d), which is treated as known: the interval is of the change, and that of an effect size would be
            wider; ``control_sd``: the nearest control's change, divided by the same ``sd``; ``excess_sd`` = change_sd -
            control_sd; ``specificity``: the absolute ``excess_sd`` divided by the larger of the absolute ``control_sd``
            and the 97.5 % quantile, over latents, of the controls' absolute changes: it is descriptive, not a test;
            ``firing_before``, ``firing_after``: shares of tokens at which it is active; ``p`` of after's change
            differing from the control's (without a control: from zero), for these very models; ``q`` its
            false-discovery rate (Benjamini and Hochberg 1995) over all latents that are not silent; ``p_runs``: the
            share of runs (after and the controls) of which some latent goes as far beyond all other runs, corrected for
            all latents and exact if the runs are exchangeable; at least 1 in K + 1 with K controls (NaN without);
            ``finding``.
        about: where the numbers come from: ``sae``, ``layer``, ``span``, models, numbers of ``controls``, dialogues and
            groups, ``null_sd`` (how far any latent moves under a control, in the same SD), ``least_sd``, ``alpha``, and
            the SAE's fit to each model.
    """

    table: pd.DataFrame
    about: dict[str, Any]

    @property
    def moved(self) -> pd.DataFrame:
        """The rows of latents that rose or fell, also those for which there are too few controls or none."""
        return self.table[self.table["finding"].isin([*UP, *DOWN])]

    def top(self, n: int, which: Which = "both", *, moved_only: bool = True) -> list[int]:
        """The ``n`` latents that moved furthest in SD (fewer, if fewer moved).

        Args:
            n: how many latents.
            which: those that rose (``up``), fell (``down``) or both.
            moved_only: leave out latents whose change is not distinguishable from the nulls.

        Raises:
            PersonaProbeError: for an unknown ``which``.
        """
        if n < 1:
            raise PersonaProbeError(f"n is {n}; ask for at least one latent")
        if which not in get_args(Which):
            raise PersonaProbeError(f"which is {which!r}; choose one of {', '.join(get_args(Which))}")
        rows = self.moved if moved_only else self.table[self.table["change_sd"].notna()]
        if which != "both":
            rows = rows[(rows["change_sd"] > 0) == (which == "up")]
        return [int(latent) for latent in rows["latent"].head(n)]

    def row(self, latent: int) -> pd.Series[Any]:
        """One latent's row.

        Raises:
            PersonaProbeError: if there is no such latent.
        """
        rows = self.table[self.table["latent"] == latent]
        if rows.empty:
            raise PersonaProbeError(f"the table has no latent {latent}; it has {len(self.table)}, from 0")
        return rows.iloc[0]

    def verdict(self) -> str:
        """What moved, in one or two sentences."""
        about, moved = self.about, self.moved
        live = int((self.table["finding"] != Moved.SILENT).sum())
        rule = (
            f"at a false-discovery rate of {about['alpha']:g}, by at least {about['least_sd']:g} SD, {self._against()}"
        )
        if moved.empty:
            return f"No latent of {live} that are active moved ({rule})."
        first = moved.iloc[0]
        rose = int(moved["finding"].isin(UP).sum())
        return (
            f"{len(moved)} of {live} active latents moved, {rose} up and {len(moved) - rose} down ({rule}). "
            f"Furthest: latent {first['latent']}, from {first['before']:.3g} to {first['after']:.3g}, a change of "
            f"{first['change']:+.3g} [{first['low']:.3g}, {first['high']:.3g}] or {first['change_sd']:+.1f} SD. "
            f"{self._support()}"
        )

    def _against(self) -> str:
        """What a latent had to exceed, in words."""
        controls, alpha = self.about["controls"], self.about["alpha"]
        if not controls:
            return "without a control, so any training might do the same"
        if controls < controls_needed(alpha):
            several = f"{controls} control{'s' * (controls != 1)}"
            return f"more than any latent moves under {several} ({self.about['null_sd']:.2f} SD)"
        return f"further beyond all other runs than {controls} controls go, p <= {alpha:g} over runs"

    def _support(self) -> str:
        """What this number of controls can support, in a sentence."""
        controls, alpha = self.about["controls"], self.about["alpha"]
        needed, share = controls_needed(alpha), f"{100 * alpha:g} %"
        if controls >= needed:
            return f"A benign run would pass this in at most {share} of cases."
        chance = f"A benign run might pass this in up to 1 of {controls + 1} cases; " if controls else ""
        return f"{chance}{'a' if chance else 'A'} claim at {share} takes {needed} controls."

    def plot(self, kind: str = "scatter", *, n: int = 12) -> go.Figure:
        """A figure of the latents' changes.

        Args:
            kind: ``scatter`` (after against the control, all latents) or ``bars`` (those that moved furthest).
            n: number of bars in either direction, at most.

        Raises:
            PersonaProbeError: for another kind.
        """
        from persona_probe.figures.latents import latent_bars, latent_scatter

        if kind not in ("scatter", "bars"):
            raise PersonaProbeError(f"LatentTable.plot: kind is {kind!r}; choose 'scatter' or 'bars'")
        return latent_bars(self.table, n=n) if kind == "bars" else latent_scatter(self.table)

    def headline(self) -> str:
        """The verdict."""
        return self.verdict()

    def shown(self) -> pd.DataFrame:
        """The latents that moved or, where none did, those that changed most."""
        rows = self.moved if len(self.moved) else self.table
        return rows[list(_SHOWN)]
