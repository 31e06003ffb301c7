"""What a search came to: every setting tried, what was chosen, and what that is worth on other questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.directions.direction import Direction
from persona_probe.directions.subspace import Subspace
from persona_probe.result import TableResult
from persona_probe.statistics.estimate import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from persona_probe.steering.interventions.intervention import Intervention


@dataclass(frozen=True)
class StoredCandidate:
    """A setting that was chosen, as a run keeps it: an intervention is made of it only where a model is at hand.

    Attributes:
        description: kind, layers, scope and parameters, as the intervention described itself.
        direction: along which.
        setting: the number that was searched over.
    """

    description: Mapping[str, Any]
    direction: Direction | Subspace
    setting: float | None

    @property
    def intervention(self) -> Intervention:
        """The intervention, made again; from here on torch is needed."""
        from persona_probe.steering.registry import intervention

        rest = {name: value for name, value in self.description.items() if name not in ("kind", "layers", "direction")}
        return intervention(self.description["kind"], self.direction, self.description["layers"], **rest)

    @property
    def layers(self) -> str:
        """The layers in words: ``3``, or ``1, 2``."""
        return ", ".join(map(str, self.description["layers"]))

    def __str__(self) -> str:
        """Kind, layers and number."""
        return f"{self.description['kind']} at {self.layers}" + ("" if self.setting is None else f", {self.setting:g}")


@dataclass(frozen=True, eq=False, repr=False)
class SteeringSearch(TableResult):
    """Settings chosen on development questions and reported on others.

    Attributes:
        table: one row a trial: ``goal``, ``stage`` (``choice``: on development questions, or ``reported``),
            ``intervention`` (``none``, its kind, or ``random`` and the kind), ``layers``, ``setting`` (the number of
            `Grid`), the EM rate ``value`` with its 95 % interval ``low`` to ``high``, ``n`` answers that count,
            ``coherent``, whether it was ``chosen`` as its kind's best, and the ``draw`` of a random one.
        chosen: the best setting of each kind.
        best: the kind whose setting is best of all, on development questions.
        change: of each kind's chosen setting on the reported questions, the change of the EM rate with its interval.
        null_change: the same of the random directions, all draws together; missing without any. They move as far as
            the chosen setting of one kind, `null_of`, which need not be the best.
        answers: all judged answers; ``purpose`` says of which trial.
        source: goal, model, direction, definition, ``min_coherence``, seeds, and the kind that the null was asked for
            (``null_of``).
    """

    table: pd.DataFrame
    chosen: Mapping[str, StoredCandidate]
    best: str
    change: Mapping[str, Estimate]
    null_change: Estimate
    answers: pd.DataFrame
    source: Mapping[str, Any]

    @property
    def intervention(self) -> Intervention:
        """The best one, ready for `persona_probe.steer`."""
        return self.chosen[self.best].intervention

    def reported(self, intervention: str) -> pd.Series[Any]:
        """The row of one intervention (``none``, or a kind) on the reported questions."""
        rows = self.table[(self.table["stage"] == "reported") & (self.table["intervention"] == intervention)]
        return rows.iloc[0]

    @property
    def random(self) -> pd.DataFrame:
        """The rows of random directions."""
        return self.table[self.table["draw"].notna()]

    @property
    def null_of(self) -> str | None:
        """The kind whose chosen setting the random directions move as far as; None without any."""
        return None if self.random.empty else str(self.random["intervention"].iloc[0]).removeprefix("random ")

    def verdict(self) -> str:
        """One sentence: what the best setting does, at what coherence, and the null with the kind that it is of."""
        plain, best = self.reported("none"), self.reported(self.best)
        line = (
            f"{self.source['goal']}: {self.chosen[self.best]}: EM rate {plain['value']:.1%} -> {best['value']:.1%} "
            f"[{best['low']:.1%}, {best['high']:.1%}] (n = {best['n']:.0f}), coherent {plain['coherent']:.0%} -> "
            f"{best['coherent']:.0%}"
        )
        if not self.source["coherent_enough"][self.best]:
            line += f"; NO setting kept the asked share of coherence ({self.source['min_coherence']:.0%})"
        elif best["coherent"] < self.source["min_coherence"] * plain["coherent"]:
            line += f"; on these questions that is below the asked share ({self.source['min_coherence']:.0%})"
        return f"{line}; {self._null()}"

    def _null(self) -> str:
        """What random directions did; of a kind that is not the best, beside what that kind did itself."""
        kind, change = self.null_of, self.null_change
        if kind is None:
            return "no random directions were measured"
        rows = self.random
        name = f"{rows['draw'].nunique()} random directions for {kind}"
        if change.is_missing:
            return f"{name}: their change could not be measured ({change.method})"
        said = f"{name}, moved equally far: {_points(change)}, coherent {rows['coherent'].mean():.0%}"
        if kind == self.best:
            return said
        own = self.change.get(kind)
        beside = "" if own is None or own.is_missing else f" ({self.chosen[kind]} itself: {_points(own)})"
        return f"there is no null for {self.best}; {said}{beside}"

    def headline(self) -> str:
        """The verdict."""
        return self.verdict()

    def shown(self) -> pd.DataFrame:
        """What was reported, without single random directions."""
        rows = self.table[(self.table["stage"] == "reported") & self.table["draw"].isna()]
        return rows[["goal", "intervention", "layers", "setting", "value", "low", "high", "n", "coherent"]]

    def __repr__(self) -> str:
        """The verdict."""
        return f"SteeringSearch({self.verdict()})"

    def plot(self) -> go.Figure:
        """EM rate and coherence of the chosen settings on the reported questions, beside random directions."""
        from persona_probe.figures.steering import steering

        return steering(self.table)


def _points(change: Estimate) -> str:
    """A change of a rate in percentage points, with its interval and n."""
    return f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}] (n = {change.n})"
