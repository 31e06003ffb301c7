"""Many interventions asked the same questions, as one list of dialogues, so that batches are full."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from persona_probe.behaviour.em_rates import coherent_rate, em_rate
from persona_probe.behaviour.judges.judge import Judge, judge_answers
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.steer_context import steer

_NUMBERS = 2**26
"""Numbers in the vectors of all interventions of one call of generate: 512 MiB."""


@dataclass(frozen=True)
class Asking:
    """How questions are asked and answers judged.

    Attributes:
        model: which model answers.
        judge: who judges.
        max_new_tokens: longest answer.
        temperature: of the sampling.
        batch_size: dialogues a forward.
        seed: of the sampling.
        progress: show a bar.
    """

    model: Model
    judge: Judge
    max_new_tokens: int = 256
    temperature: float = 1.0
    batch_size: int = 128
    seed: int = 0
    progress: bool = False

    def ask(
        self,
        questions: Sequence[Dialogue],
        interventions: Sequence[Intervention | None],
        *,
        at_once: int | None = None,
    ) -> list[pd.DataFrame]:
        """Ask all ``questions`` under each intervention (None: unsteered).

        Args:
            questions: dialogues without answers.
            interventions: under which they are asked.
            at_once: how many interventions share a call of generate; by default as many as memory allows.

        Returns:
            A judged table for each intervention, rows in the order of ``questions``; ``question`` is filled in.
        """
        per_call = at_once or self._at_once(interventions)
        answers: list[Dialogue] = []
        for start in range(0, len(interventions), per_call):
            answers += self._generate(questions, interventions[start : start + per_call], self.seed + start)
        table = judge_answers(self.judge, answers)
        table["question"] = units(questions) * len(interventions)
        n = len(questions)
        return [table.iloc[i * n : (i + 1) * n].reset_index(drop=True) for i in range(len(interventions))]

    def _at_once(self, interventions: Sequence[Intervention | None]) -> int:
        """Each intervention brings vectors of its own, at every layer."""
        layers = max((len(one.layers_in(self.model)) for one in interventions if one is not None), default=1)
        return max(1, _NUMBERS // (layers * 2 * self.model.d_model))

    def _generate(
        self, questions: Sequence[Dialogue], interventions: Sequence[Intervention | None], seed: int
    ) -> list[Dialogue]:
        each = [one for one in interventions for _ in questions]
        steered = any(one is not None for one in interventions)
        with steer(self.model, each) if steered else contextlib.nullcontext():
            return self.model.generate(
                [replace(question, seed=None) for _ in interventions for question in questions],
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                batch_size=self.batch_size,
                seed=seed,
                progress=self.progress,
            )


def check_questions(questions: Sequence[Dialogue], development: Sequence[Dialogue] | None = None) -> None:
    """Refuse an empty set, and questions that strengths were chosen on.

    Raises:
        PersonaProbeError: if there is no question, or one is in both sets (the text is shown).
    """
    for name, given in {"questions": questions, "development": development}.items():
        if given is not None and not given:
            raise PersonaProbeError(f"there are no {name}: the list is empty; give dialogues without an answer")
    both = {_text(question) for question in questions} & {_text(question) for question in development or ()}
    if both:
        raise PersonaProbeError(
            f"{len(both)} questions are in development and in questions, such as {min(both)[:80]!r}; strengths are "
            "chosen on development and reported on others: leave them out of one of the two"
        )


def measured(table: pd.DataFrame, definition: str) -> dict[str, Any]:
    """A judged table's rates as columns; NaN where no answer qualifies."""
    rate, coherent = em_rate(table, definition), coherent_rate(table)
    return {
        "em_rate": rate.value,
        "em_low": rate.low,
        "em_high": rate.high,
        "n": rate.n,
        "coherent": coherent.value,
        "coherent_low": coherent.low,
        "coherent_high": coherent.high,
        "failures": int(table["failed"].sum()),
    }


def pooled(draws: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Answers under several nulls as one table, in which each draw counts as a seed."""
    return pd.concat([draw.assign(seed=number) for number, draw in enumerate(draws)], ignore_index=True)


def _text(dialogue: Dialogue) -> str:
    return "\n".join(f"{message.role}: {message.content.strip()}" for message in dialogue.messages)


def units(questions: Sequence[Dialogue]) -> list[str]:
    """What intervals are over: the questions' names, or each by itself where one has none."""
    names = [question.question for question in questions]
    return [name if name is not None else f"question {number}" for number, name in enumerate(names)]
