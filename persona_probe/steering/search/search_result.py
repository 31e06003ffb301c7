"""The result of a search: every setting tried, what was chosen, and its results on other questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona_probe.directions.direction import Direction
from persona_probe.directions.subspace import Subspace
from persona_probe.result import TableResult
from persona_probe.statistics.estimate import Estimate
from persona_probe.steering.search.screen_result import SteeringScreen

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from persona_probe.steering.interventions.intervention import Intervention


@dataclass(frozen=True)
class StoredCandidate:
    """A chosen setting as a run stores it; an intervention is made from it only when it is needed.

    Attributes:
        description: kind, layers, scope and parameters, as `Intervention.describe` gives them.
        direction: the direction that was steered along.
        setting: the number that was searched over: a relative dose, a percentile of a cap, or None.
    """

    description: Mapping[str, Any]
    direction: Direction | Subspace
    setting: float | None

    @property
    def intervention(self) -> Intervention:
        """The intervention; making it imports torch."""
        from persona_probe.steering.registry import intervention

        rest = {name: value for name, value in self.description.items() if name not in ("kind", "layers", "direction")}
        return intervention(self.description["kind"], self.direction, self.description["layers"], **rest)

    @property
    def layers(self) -> str:
        """The layers as text: ``3``, or ``1, 2``."""
        return ", ".join(map(str, self.description["layers"]))

    def __str__(self) -> str:
        """Kind, layers and number."""
        setting = "" if self.setting is None else f", {self.setting:.3g}"
        return f"{self.description['kind']} at {self.layers}{setting}"


@dataclass(frozen=True, eq=False, repr=False)
class SteeringSearch(TableResult):
    """Settings chosen on development questions and reported on others.

    Attributes:
        table: one row per trial: ``goal``, ``stage`` (``read``: forward passes only, ``choice``: on development
            questions, or ``reported``), ``intervention`` (``none``, its kind, or ``random`` and the kind), ``layers``,
            ``setting`` (the relative dose of a clamp or an addition, the percentile of a cap), ``kl`` (to the unsteered
            model on its own answers, nats per token), ``gain`` and ``wanted`` (how much the wanted answers gain on the
            other ones, and how much likelier they become, by forward passes, nats per token), ``score`` (what settings
            are chosen by), the behaviour ``value`` (an EM rate, or a preference in nats per token) with its
            95 % interval ``low`` to ``high``, ``n`` answers (or questions) that count, ``coherent``, ``wrong_way`` (the
            share of questions at which behaviour moved against the goal) with ``wrong_low`` and ``wrong_high``, whether
            it was ``chosen`` as the best of its kind, and the ``draw`` of a random direction.
        chosen: the best setting of each kind.
        best: the kind with the best setting of all, on development questions.
        change: the change of the behaviour by each kind's chosen setting on the reported questions, with its interval.
        null_change: the same for all random directions together; missing if there are none. They move as far as the
            chosen setting of one kind, `null_of`, which need not be the best.
        answers: all judged answers (or preferences); ``purpose`` names the trial.
        screen: whether the trait can be steered along the direction at all; None if that was not tested.
        source: goal, ``measure`` (``EM rate`` or ``preference``), model, direction, definition, ``min_coherence``,
            seeds, and the kind that the null was asked for (``null_of``).
    """

    table: pd.DataFrame
    chosen: Mapping[str, StoredCandidate]
    best: str
    change: Mapping[str, Estimate]
    null_change: Estimate
    answers: pd.DataFrame
    source: Mapping[str, Any]
    screen: SteeringScreen | None = None

    @property
    def intervention(self) -> Intervention:
        """The best intervention, ready for `persona_probe.steer`."""
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
        """The kind with whose chosen setting the random directions are compared; None without random directions."""
        return None if self.random.empty else str(self.random["intervention"].iloc[0]).removeprefix("random ")

    @property
    def measure(self) -> str:
        """What behaviour was measured by: ``EM rate`` or ``preference``."""
        return str(self.source.get("measure", "EM rate"))

    def verdict(self) -> str:
        """One sentence: what the best setting does and costs, and the null with the kind that it was made from."""
        plain, best = self.reported("none"), self.reported(self.best)
        line = f"{self.source['goal']}: {self.chosen[self.best]}"
        if pd.notna(best.get("kl")):
            line += f" ({best['kl']:.2g} nats)"
        if self.measure == "EM rate":
            line += (
                f": EM rate {plain['value']:.1%} -> {best['value']:.1%} [{best['low']:.1%}, {best['high']:.1%}] "
                f"(n = {best['n']:.0f}), coherent {plain['coherent']:.0%} -> {best['coherent']:.0%}"
            )
        else:
            line += (
                f": preference {plain['value']:+.2f} -> {best['value']:+.2f} [{best['low']:+.2f}, {best['high']:+.2f}] "
                f"nats per token (n = {best['n']:.0f} questions)"
            )
        if pd.notna(best.get("wrong_way")):
            line += f", wrong way at {best['wrong_way']:.0%} of questions"
        if not self.source["coherent_enough"][self.best]:
            line += f"; NO setting reached the required share of coherence ({self.source['min_coherence']:.0%})"
        elif best["coherent"] < self.source["min_coherence"] * plain["coherent"]:
            line += f"; on these questions that is below the required share ({self.source['min_coherence']:.0%})"
        return f"{line}; {self._null()}"

    def _null(self) -> str:
        """What random directions did; if they were made from a kind that is not the best, with what that kind did."""
        kind, change = self.null_of, self.null_change
        if kind is None:
            return "no random directions were measured"
        rows = self.random
        name = f"{rows['draw'].nunique()} random directions for {kind}"
        if change.is_missing:
            return f"{name}: their change could not be measured ({change.method})"
        coherent = f", coherent {rows['coherent'].mean():.0%}" if rows["coherent"].notna().any() else ""
        random = f"{name}, moved equally far: {self._change(change)}{coherent}"
        if kind == self.best:
            return random
        real = self.change.get(kind)
        compared = "" if real is None or real.is_missing else f" ({self.chosen[kind]} itself: {self._change(real)})"
        return f"there is no null for {self.best}; {random}{compared}"

    def _change(self, change: Estimate) -> str:
        """A change of behaviour, with its interval and n."""
        if self.measure == "EM rate":
            ends = f"{100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
        else:
            ends = f"{change.value:+.2f} nats per token [{change.low:+.2f}, {change.high:+.2f}]"
        return f"{ends} (n = {change.n})"

    def headline(self) -> str:
        """The verdict."""
        return self.verdict()

    def shown(self) -> pd.DataFrame:
        """The reported rows, without single random directions."""
        rows = self.table[(self.table["stage"] == "reported") & self.table["draw"].isna()]
        columns = ["goal", "intervention", "layers", "setting", "kl", "value", "low", "high", "n", "coherent"]
        return rows[[*columns, "wrong_way"]]

    def __repr__(self) -> str:
        """The verdict."""
        return f"SteeringSearch({self.verdict()})"

    def plot(self) -> go.Figure:
        """Behaviour and coherence of the chosen settings on the reported questions, compared with random directions."""
        from persona_probe.figures.steering import steering

        return steering(self.table, measure=self.measure)
