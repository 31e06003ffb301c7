"""Dose-response curves: the effect of each strength, compared with its nulls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

UNSTEERED, DIRECTION = "unsteered", "direction"
EQUAL_NORM, EQUAL_KL = "random, equal norm", "random, equal KL"


@dataclass(frozen=True, eq=False, repr=False)
class DoseResponse(Result):
    """Behaviour and its cost at each strength.

    Attributes:
        table: one row per condition (``unsteered``, ``direction``, ``random, equal norm``, ``random, equal KL``) and
            ``strength`` (the direction's). ``dose`` (the direction's relative dose there: length of the change divided
            by that of the stream, with the sign of the strength), ``own_strength`` (for nulls at equal KL their mean
            strength), ``draws`` (random directions), ``em_rate`` with ``em_low`` and ``em_high``, ``n`` answers that
            count, ``coherent`` (a share) and ``aligned`` (the mean score) with theirs, ``failures``, ``kl`` (mean, in
            nats), ``perplexity`` (of the unsteered model's answers) and ``accuracy`` (multiple choice), each with
            ``_low`` and ``_high``. Intervals are 95 %, over questions and, for nulls, draws.
        draws: the same for each single random direction.
        answers: the judged answers, with ``condition``, ``strength`` and ``draw``.
        settings: model, intervention, definition, judge, counts, seed.
    """

    table: pd.DataFrame
    draws: pd.DataFrame
    answers: pd.DataFrame
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        """The model, the EM rate at each strength, and the number of random directions."""
        dosed = self.table[self.table["condition"] == DIRECTION]
        rates = ", ".join(f"{row['dose']:+.2g}: {row['em_rate']:.0%}" for row in dosed.to_dict("records"))
        draws = int(self.table["draws"].max())
        return f"DoseResponse({self.settings['model']!r}, EM rate at relative dose {rates}; {draws} draws)"

    def headline(self) -> str:
        """The largest change of the EM rate along the direction, compared with random directions at the same KL."""
        plain = self.table[self.table["condition"] == UNSTEERED].iloc[0]
        dosed = self.table[(self.table["condition"] == DIRECTION) & self.table["em_rate"].notna()]
        if dosed.empty:
            return f"{self.settings['model']}: no EM rate could be measured"
        row = dosed.iloc[int((dosed["em_rate"] - plain["em_rate"]).abs().to_numpy().argmax())]
        line = (
            f"{self.settings['model']}, relative dose {row['dose']:+.2g} (strength {row['strength']:+.3g}, KL "
            f"{row['kl']:.2g} nats): EM rate {plain['em_rate']:.0%} -> "
            f"{row['em_rate']:.0%} [{row['em_low']:.0%}, {row['em_high']:.0%}] (n = {row['n']:.0f}), coherent "
            f"{plain['coherent']:.0%} -> {row['coherent']:.0%}"
        )
        for condition in (EQUAL_KL, EQUAL_NORM):
            null = self.table[(self.table["condition"] == condition) & (self.table["strength"] == row["strength"])]
            if len(null) and null["em_rate"].notna().all():
                one = null.iloc[0]
                return (
                    f"{line}; {condition} ({one['draws']:.0f} draws): {one['em_rate']:.0%}, coherent "
                    f"{one['coherent']:.0%}"
                )
        return f"{line}; no random directions were measured"

    def shown(self) -> pd.DataFrame:
        """EM rate, coherence and KL."""
        return self.table[
            ["condition", "strength", "dose", "kl", "em_rate", "em_low", "em_high", "n", "coherent", "draws"]
        ]

    def to_frame(self) -> pd.DataFrame:
        """A copy of ``table``, with the definition of the EM rate."""
        return self.table.assign(definition=self.settings["definition"])

    def plot(self) -> go.Figure:
        """The curves; see `persona_probe.figures.dose_response.dose_response`."""
        from persona_probe.figures.dose_response import dose_response

        return dose_response(self.table)
