"""Many latent edits asked the same questions, as one list of dialogues, so that batches are full."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from persona_probe.behaviour.em_rate import coherent_rate, em_rate
from persona_probe.behaviour.judging import Judge, judge_answers
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.sae import Sae
from persona_probe.latents.steering import LatentEdit, steer_latents
from persona_probe.models.model import Model

_CELLS = 2**25
"""Rows x latents of the edits' matrices in one call of generate: 128 MiB each."""


@dataclass(frozen=True)
class Asking:
    """How questions are asked and answers judged."""

    sae: Sae
    model: Model
    judge: Judge
    scope: str
    max_new_tokens: int
    temperature: float
    batch_size: int
    seed: int
    progress: bool

    def ask(self, questions: Sequence[Dialogue], edits: Sequence[LatentEdit | None]) -> list[pd.DataFrame]:
        """Ask all ``questions`` under each edit (None: unsteered).

        Returns:
            A judged table for each edit, rows in the order of ``questions``; ``question`` is filled in.
        """
        per_call = max(1, math.isqrt(_CELLS // (len(questions) * max(_size(edit) for edit in edits))))
        answers: list[Dialogue] = []
        for start in range(0, len(edits), per_call):
            answers += self._generate(questions, edits[start : start + per_call], self.seed + start)
        table = judge_answers(self.judge, answers)
        table["question"] = _units(questions) * len(edits)
        n = len(questions)
        return [table.iloc[i * n : (i + 1) * n].reset_index(drop=True) for i in range(len(edits))]

    def _generate(self, questions: Sequence[Dialogue], edits: Sequence[LatentEdit | None], seed: int) -> list[Dialogue]:
        each = [edit for edit in edits for _ in questions]
        steered = any(edit is not None for edit in edits)
        with steer_latents(self.model, self.sae, each, scope=self.scope) if steered else contextlib.nullcontext():
            return self.model.generate(
                [replace(question, seed=None) for _ in edits for question in questions],
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
    """Answers under several matched edits as one table, in which each draw counts as a seed."""
    return pd.concat([draw.assign(seed=number) for number, draw in enumerate(draws)], ignore_index=True)


def _size(edit: LatentEdit | None) -> int:
    return 1 if edit is None else len(edit.latents)


def _text(dialogue: Dialogue) -> str:
    return dialogue.messages[-1].content.strip()


def _units(questions: Sequence[Dialogue]) -> list[str]:
    """What intervals are over: the questions' names, or each by itself where one has none."""
    names = [question.question for question in questions]
    return [name if name is not None else f"question {number}" for number, name in enumerate(names)]
