"""Curves of KL or of coherence against strength, measured at the strengths that a search asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persona_probe.behaviour.em_rates import coherent_rate
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.statistics.estimate import Estimate
from persona_probe.steering.asking import Asking
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.strength.divergence import measure_divergence
from persona_probe.steering.strength.search import Search


class Curves:
    """A measured curve, by strength with its sign.

    Attributes:
        column: the column of what is measured.
        reached: the start of the note for a curve that never meets the budget.
        tried: the estimate at each strength.
    """

    column: str
    reached: str

    def __init__(self) -> None:
        self.tried: dict[float, Estimate] = {}

    def measure(self, strengths: Sequence[float]) -> list[float]:
        """The curve's values at some strengths; at strength 0 it would be 0."""
        raise NotImplementedError

    def strength(self, search: Search) -> float | None:
        """The strength that a finished search has found."""
        raise NotImplementedError

    def doubt(self, search: Search) -> str:
        """In what way the curve is not monotone, so that several strengths meet the budget; empty if it is."""
        return "it is within the budget again at a larger strength" if search.returns else ""

    def columns(self, estimate: Estimate) -> dict[str, Any]:
        """An estimate as columns."""
        return {self.column: estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


class KlCurves(Curves):
    """Mean or p95 KL to the unsteered model, in nats."""

    column = "kl"
    reached = "the KL stays below it up to strength"

    def __init__(
        self,
        model: Model,
        intervention: Intervention,
        answered: Sequence[Dialogue],
        statistic: str,
        tokens_per_batch: int | None,
        progress: bool,
    ) -> None:
        super().__init__()
        self._given = model, intervention, answered, statistic, tokens_per_batch, progress

    def measure(self, strengths: Sequence[float]) -> list[float]:
        """Mean or p95 KL at some strengths."""
        model, intervention, answered, statistic, tokens, progress = self._given
        steered = [intervention.with_strength(strength) for strength in strengths]
        read = measure_divergence(model, steered, answered, tokens_per_batch=tokens, progress=progress)
        estimates = [read.estimate(number, statistic) for number in range(len(strengths))]
        self.tried |= zip(strengths, estimates, strict=True)
        return [estimate.value for estimate in estimates]

    def strength(self, search: Search) -> float | None:
        """The first strength that reaches the budget."""
        return search.found

    def doubt(self, search: Search) -> str:
        """In what way the curve is not monotone, which includes a fall before it reaches the budget."""
        return super().doubt(search) or ("" if search.rises else "it falls in between")


class CoherenceCurves(Curves):
    """The share of coherent answers."""

    column = "coherent"
    reached = "answers stay coherent up to strength"

    def __init__(self, asking: Asking, intervention: Intervention, questions: Sequence[Dialogue]) -> None:
        super().__init__()
        self._asking, self._intervention, self._questions = asking, intervention, questions
        self.unsteered = coherent_rate(asking.ask(questions, [None])[0])
        if not self.unsteered.value > 0:
            raise PersonaProbeError(
                f"calibrate_strength: the share of coherent answers of {asking.model.name} is "
                f"{self.unsteered.value:.0%} when it is not steered, so that there is no coherence to preserve; check "
                "that the judge can read these answers"
            )

    def measure(self, strengths: Sequence[float]) -> list[float]:
        """The share of coherent answers that is lost."""
        steered = [self._intervention.with_strength(strength) for strength in strengths]
        rates = [coherent_rate(table) for table in self._asking.ask(self._questions, steered)]
        self.tried |= zip(strengths, rates, strict=True)
        return [1.0 - rate.value / self.unsteered.value for rate in rates]

    def strength(self, search: Search) -> float | None:
        """The last strength before coherence first falls too far."""
        low, _ = search.bracket()
        return low if search.found is not None and low > 0.0 else None
