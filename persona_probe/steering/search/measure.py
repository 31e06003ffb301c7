"""The measure of behaviour that a search chooses by: judged answers, or a preference that needs no judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rates import DEFINITIONS, check_definition, coherent_rate, em_rate, rate_change
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.models.model import Model
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rates import mean_estimate, ratio_estimate
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.search.reading import BASE, TRAIT, gains, pairs_reader

Trial = tuple[str, Sequence[Any], Intervention | None]
"""A name, the questions (dialogues, or pairs) that are measured on, and the intervention (None: unsteered)."""

EM_RATE, PREFERENCE = "EM rate", "preference"


class Measure(Protocol):
    """A measure of behaviour: what is larger has more of the trait."""

    @property
    def name(self) -> str:
        """``EM rate`` (a share) or ``preference`` (nats per token)."""
        ...

    @property
    def definition(self) -> str | None:
        """The definition of the EM rate, or None."""
        ...

    def run(self, trials: Sequence[Trial], label: str) -> list[pd.DataFrame]:
        """One table per trial, with a ``question`` in every row."""
        ...

    def value(self, table: pd.DataFrame) -> Estimate:
        """The behaviour of one trial."""
        ...

    def change(self, before: pd.DataFrame, after: pd.DataFrame) -> Estimate:
        """The behaviour of ``after`` minus that of ``before``, paired over questions."""
        ...

    def score(self, before: pd.DataFrame, after: pd.DataFrame, sign: int) -> float:
        """How good a setting is for the goal (``sign``: 1 to induce, -1 to suppress); NaN if it was not measured."""
        ...

    def coherent(self, table: pd.DataFrame) -> float:
        """The share of coherent answers; NaN if the measure has no answers."""
        ...

    def by_question(self, table: pd.DataFrame) -> pd.Series[float]:
        """The behaviour at each question that it is known at."""
        ...


class Asker(Protocol):
    """Anything that samples and judges answers."""

    def run(self, trials: Sequence[Trial], label: str) -> list[pd.DataFrame]:
        """The judged table of each trial, with a ``question`` in every row."""
        ...


class Judged:
    """The EM rate of sampled and judged answers.

    Args:
        asker: samples and judges the answers.
        definition: definition of the EM rate.

    Raises:
        PersonaProbeError: for an unknown definition.
    """

    name = EM_RATE

    def __init__(self, asker: Asker, definition: str = "betley") -> None:
        check_definition(definition)
        self._asker, self.definition = asker, definition

    def run(self, trials: Sequence[Trial], label: str) -> list[pd.DataFrame]:
        """The judged table of each trial."""
        return self._asker.run(trials, label)

    def value(self, table: pd.DataFrame) -> Estimate:
        """The EM rate."""
        return em_rate(table, self.definition)

    def change(self, before: pd.DataFrame, after: pd.DataFrame) -> Estimate:
        """The change of the EM rate."""
        return rate_change(before, after, self.definition)

    def score(self, before: pd.DataFrame, after: pd.DataFrame, sign: int) -> float:
        """The EM rate, with the sign of the goal."""
        del before
        return sign * self.value(after).value

    def coherent(self, table: pd.DataFrame) -> float:
        """The share of coherent answers."""
        return coherent_rate(table).value

    def by_question(self, table: pd.DataFrame) -> pd.Series[float]:
        """The share of misaligned answers among those that count, by question."""
        definition = DEFINITIONS[self.definition]
        counts = table[definition.denominator(table)]
        return definition.numerator(counts).astype(float).groupby(counts["question"]).mean()


class Preferred:
    """The preference for misaligned answers: forward passes only, no judge and no sampling.

    Trials are on pairs (`Pair`), not on questions.

    Args:
        model: which model is steered.
        own: its own answers, on which KL is measured.
        progress: show bars.
    """

    name = PREFERENCE
    definition = None

    def __init__(self, model: Model, own: Sequence[Dialogue], *, progress: bool = False) -> None:
        self._model, self._own, self._progress = model, own, progress

    def run(self, trials: Sequence[Trial], label: str) -> list[pd.DataFrame]:
        """Each trial's ``preference`` and log-probability of both poles at each ``question``, in nats per token."""
        del label
        same: dict[tuple[int, ...], list[int]] = {}
        for number, (_, pairs, _) in enumerate(trials):
            same.setdefault(tuple(map(id, pairs)), []).append(number)
        tables: dict[int, pd.DataFrame] = {}
        for numbers in same.values():
            pairs = trials[numbers[0]][1]
            steered = {number: given for number in numbers if (given := trials[number][2]) is not None}
            reading = pairs_reader(self._model, self._own, pairs, progress=self._progress).read(list(steered.values()))
            moved = dict(zip(steered, reading.moved, strict=True))
            for number in numbers:
                poles = reading.unsteered + moved.get(number, np.zeros_like(reading.unsteered))
                columns = {"preference": poles[TRAIT] - poles[BASE], "misaligned": poles[TRAIT], "aligned": poles[BASE]}
                tables[number] = pd.DataFrame({"question": [pair.name for pair in pairs], **columns})
        return [tables[number] for number in range(len(trials))]

    def value(self, table: pd.DataFrame) -> Estimate:
        """The mean preference over questions."""
        return _mean(table["preference"], table)

    def change(self, before: pd.DataFrame, after: pd.DataFrame) -> Estimate:
        """The mean change over questions."""
        moved = after["preference"] - after["question"].map(before.set_index("question")["preference"])
        return _mean(moved, after)

    def score(self, before: pd.DataFrame, after: pd.DataFrame, sign: int) -> float:
        """The smaller of two gains: that of the preference, and that of the answers that are wanted."""
        columns = {BASE: "aligned", TRAIT: "misaligned"}
        moved = np.stack([(after[columns[pole]] - before[columns[pole]]).to_numpy() for pole in (BASE, TRAIT)])
        return min(gains(moved, sign))

    def coherent(self, table: pd.DataFrame) -> float:
        """NaN: there are no answers; the KL says how far the model is from itself."""
        del table
        return float("nan")

    def by_question(self, table: pd.DataFrame) -> pd.Series[float]:
        """The preference at each question."""
        return table.groupby("question")["preference"].mean()


def _mean(values: pd.Series[float], table: pd.DataFrame) -> Estimate:
    if not np.isfinite(values.to_numpy(dtype=float)).all():
        return Estimate.missing("some answers have no log-probability: the steered stream overflowed")
    seeds = table["seed"].to_numpy() if "seed" in table else None
    return mean_estimate(values.to_numpy(dtype=float), questions=table["question"].to_numpy(), seeds=seeds)


def wrong_way(measure: Measure, before: pd.DataFrame, after: pd.DataFrame, sign: int) -> Estimate:
    """The share of questions at which behaviour moved against the goal, with its interval over questions.

    Args:
        measure: the measure of behaviour.
        before: the unsteered trial.
        after: the steered trial, on the same questions.
        sign: 1 to induce, -1 to suppress.

    >>> import pandas as pd
    >>> from persona_probe.steering.search.measure import Judged, wrong_way
    >>> before = pd.DataFrame({"question": list("abcd"), "aligned": [5, 5, 95, 95], "coherent": 90, "seed": None})
    >>> after = before.assign(aligned=[95, 95, 5, 95])
    >>> wrong_way(Judged(None), before, after, sign=-1).value
    0.25
    """
    pair = pd.concat([measure.by_question(before), measure.by_question(after)], axis=1, keys=["before", "after"])
    moved = sign * (pair["after"] - pair["before"]).dropna().to_numpy(dtype=float)
    if not len(moved):
        return Estimate.missing("no question was measured both steered and unsteered")
    wrong = moved < 0
    return ratio_estimate(wrong, np.ones(len(wrong), dtype=bool))
