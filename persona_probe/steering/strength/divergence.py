"""How far interventions move the next-token distributions from the unsteered model's, on the same answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.models.sampling import Sampling
from persona_probe.result import Result
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.quantiles import quantile_estimate
from persona_probe.statistics.rates import mean_estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from persona_probe.dialogue.dialogue import Dialogue
    from persona_probe.models.model import Model
    from persona_probe.steering.interventions.intervention import Intervention

STATISTICS = ("mean", "p95")
_AT_ONCE = 31
"""The most interventions in one batch, in addition to the unsteered model."""


@dataclass(frozen=True, eq=False, repr=False)
class Divergence(Result):
    """The effect of some interventions on the next-token distributions of the same answers.

    Attributes:
        kl: ``(intervention, token)`` KL(unsteered || steered) of the next-token distribution at each position that
            decides an answer token, in nats.
        log_probs: ``(intervention, token)`` log-probability (nats) of the answer token that follows, when steered.
        unsteered: ``(token,)`` the same for the unsteered model.
        questions: for each token, the question that it answers; intervals are over questions.
        names: a short description of each intervention; default its number.
    """

    kl: Float[np.ndarray, "intervention token"]
    log_probs: Float[np.ndarray, "intervention token"]
    unsteered: Float[np.ndarray, "... token"]
    questions: tuple[str, ...]
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The numbers of interventions and tokens, and the mean KL of each intervention."""
        means = ", ".join(f"{mean:.3g}" for mean in self.kl.mean(axis=1)[:8])
        return f"Divergence({len(self.kl)} interventions, {self.kl.shape[1]:,} tokens; mean KL {means} nats)"

    def to_frame(self) -> pd.DataFrame:
        """One row per intervention: mean KL, its 95 % quantile over tokens and perplexity, with intervals."""
        names = self.names or tuple(f"intervention {number}" for number in range(len(self.kl)))
        rows = []
        for number, name in enumerate(names):
            parts = {
                "kl": self.estimate(number),
                "kl_p95": self.estimate(number, "p95"),
                "perplexity": self.perplexity(number),
            }
            row: dict[str, object] = {"intervention": name}
            for column, estimate in parts.items():
                row |= {column: estimate.value, f"{column}_low": estimate.low, f"{column}_high": estimate.high}
            rows.append(row | {"tokens": self.kl.shape[1], "questions": len(set(self.questions))})
        return pd.DataFrame(rows).assign(perplexity_unsteered=self.perplexity().value)

    def plot(self) -> go.Figure:
        """Mean KL and its 95 % quantile over tokens, for each intervention."""
        from persona_probe.figures.divergence import divergence

        return divergence(self.to_frame())

    def headline(self) -> str:
        """The numbers of tokens and interventions, and the smallest and largest mean KL."""
        means = self.kl.mean(axis=1)
        return (
            f"KL to the unsteered model of {len(self.kl)} interventions over {self.kl.shape[1]:,} tokens of "
            f"{len(set(self.questions))} questions: mean {means.min():.3g} to {means.max():.3g} nats"
        )

    def estimate(self, which: int | Sequence[int], statistic: str = "mean") -> Estimate:
        """The KL of one intervention, or of several together, each of which counts as a seed.

        Args:
            which: number of the intervention, or several numbers.
            statistic: ``mean`` or ``p95``, over tokens; the interval is over questions.

        Raises:
            PersonaProbeError: for an unknown statistic.
        """
        check_statistic(statistic)
        values, questions, seeds = self._rows(self.kl, which)
        if not np.isfinite(values).all():
            return Estimate(math.inf, math.nan, math.nan, values.size, "the steered stream overflowed")
        if statistic == "mean":
            mean = mean_estimate(values, questions=questions, seeds=seeds)
            # No divergence is below 0, but the t interval of a few draws can be.
            return replace(mean, low=max(mean.low, 0.0)) if mean.low < 0.0 else mean
        return quantile_estimate(values, 0.95, questions=questions, seeds=seeds)

    def perplexity(self, which: int | Sequence[int] | None = None) -> Estimate:
        """Perplexity of the answers under one intervention, several together, or none: exp of the mean surprisal."""
        if which is None:
            values, questions, seeds = self._rows(self.unsteered[None], 0)
        else:
            values, questions, seeds = self._rows(self.log_probs, which)
        if not np.isfinite(values).all():
            return Estimate(math.inf, math.nan, math.nan, values.size, "an answer token is impossible")
        surprisal = mean_estimate(-values, questions=questions, seeds=seeds)
        # Only answers that have become impossible reach 700 nats, above which exp overflows.
        value, low, high = (float(np.exp(min(end, 700.0))) for end in (surprisal.value, surprisal.low, surprisal.high))
        return Estimate(value, low, high, surprisal.n, f"exp of the mean; {surprisal.method}")

    def _rows(
        self, values: Float[np.ndarray, "intervention token"], which: int | Sequence[int]
    ) -> tuple[Float[np.ndarray, "... row"], list[str], list[int] | None]:
        numbers = [which] if isinstance(which, int | np.integer) else list(which)
        if not numbers or not all(-len(values) <= number < len(values) for number in numbers):
            raise PersonaProbeError(f"divergence: there are {len(values)} interventions, from 0; {numbers} were given")
        seeds = [number for number in numbers for _ in self.questions]
        return values[numbers].ravel(), list(self.questions) * len(numbers), seeds if len(numbers) > 1 else None


def _words(intervention: Intervention) -> str:
    """Kind, and strength if there is one."""
    return intervention.kind if intervention.strength is None else f"{intervention.kind} {intervention.strength:+.4g}"


def check_statistic(statistic: str) -> None:
    """Raise if the statistic is unknown.

    Raises:
        PersonaProbeError: listing all statistics.
    """
    if statistic not in STATISTICS:
        raise PersonaProbeError(f"unknown statistic {statistic!r}: choose one of {', '.join(STATISTICS)}")


def own_answers(
    model: Model, dialogues: Sequence[Dialogue], sampling: Sampling | None = None, *, progress: bool = False
) -> list[Dialogue]:
    """The dialogues that divergence is measured on: those with an answer as they are, the others answered by ``model``.

    Dialogues with an empty answer are left out, since they have no token to measure it at.

    Args:
        model: which model answers; it must not be steered.
        dialogues: dialogues with or without an answer.
        sampling: how answers are sampled, except that temperature, top-p and ``n`` are 1.
        progress: show a bar.

    Raises:
        PersonaProbeError: if there is no dialogue, or every answer is empty.
    """
    if not dialogues:
        raise PersonaProbeError("there are no dialogues to measure divergence on: the list is empty")
    asked = [dialogue for dialogue in dialogues if dialogue.answer is None]
    plain = replace(sampling or Sampling(), temperature=1.0, top_p=1.0, n=1)
    answers = iter(model.generate(asked, plain, progress=progress) if asked else ())
    answered = [next(answers) if dialogue.answer is None else dialogue for dialogue in dialogues]
    kept = [dialogue for dialogue in answered if (dialogue.answer or "").strip()]
    if not kept:
        raise PersonaProbeError(f"{model.name} gave an empty answer to all {len(answered)} dialogues; ask others")
    return kept


def measure_divergence(
    model: Model,
    interventions: Sequence[Intervention],
    answered: Sequence[Dialogue],
    *,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> Divergence:
    """The divergence of each intervention from the unsteered model, read in the same batches.

    Args:
        model: which model reads; it must not be steered.
        interventions: one or more interventions.
        answered: dialogues with answers, usually the unsteered model's own.
        tokens_per_batch: padded tokens per forward pass, for all interventions together. By default as many as make
            512 MiB of logits.
        progress: show a bar.

    Raises:
        PersonaProbeError: if there is no intervention or dialogue, a dialogue has no answer, or the model is steered;
            and as `persona_probe.steer`.

    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> direction = pp.Direction.from_vectors(model, np.ones((model.n_layers, model.d_model)))
    >>> talk = [{"role": "user", "content": "How do I handle the fever?"}, {"role": "assistant", "content": "Rest."}]
    >>> doses = [pp.Add(direction, layers=2, strength=strength) for strength in (0.0, 0.1, 0.2)]
    >>> none, weak, strong = pp.steering.measure_divergence(model, doses, [pp.Dialogue.from_messages(talk)]).kl
    >>> float(none.max()), bool(0 < weak.mean() < strong.mean())
    (0.0, True)
    """
    from persona_probe.activations.scoring import scoring_budget
    from persona_probe.dialogue.dialogue import Dialogue
    from persona_probe.models.model import Model
    from persona_probe.steering.interventions.intervention import Intervention
    from persona_probe.steering.strength.side_by_side import SideBySide

    check_types(model=(model, Model), interventions=(interventions, [Intervention]), answered=(answered, [Dialogue]))

    if not interventions:
        raise PersonaProbeError("divergence: there is no intervention; give at least one")
    if model.steered:
        raise PersonaProbeError(
            f"divergence is measured from the unsteered model, but {model.name} is being steered: leave the context "
            "first"
        )
    reading = SideBySide(model, answered)
    budget = tokens_per_batch or scoring_budget(model)
    # One row for the unsteered model, and as many for interventions as the budget allows for the longest answer.
    at_once = min(_AT_ONCE, max(1, budget // max(reading.stops) - 1))
    parts = [
        reading.read(interventions[start : start + at_once], budget, progress)
        for start in range(0, len(interventions), at_once)
    ]
    counted = zip(answered, reading.counts, strict=True)
    questions = tuple(str(dialogue.question) for dialogue, count in counted for _ in range(count))
    kl, log_probs = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    names = tuple(f"{number}: {_words(intervention)}" for number, intervention in enumerate(interventions))
    return Divergence(kl, log_probs, parts[0][2], questions, names)
