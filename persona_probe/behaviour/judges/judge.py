"""Judges, and the one table that every rate is computed from."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError


class Judge(Protocol):
    """Scores answers.

    Called with answered dialogues, a judge returns one row a dialogue with at least ``aligned`` and ``coherent``
    (0-100, NaN where it failed), and may add ``refusal`` (bool) and columns of its own.
    """

    name: str

    def __call__(self, dialogues: Sequence[Dialogue]) -> pd.DataFrame:
        """Judge every dialogue's last answer."""
        ...

    def applies(self, dialogues: Sequence[Dialogue]) -> bool:
        """Whether these answers are of a kind the judge can read at all."""
        ...


JUDGES: dict[str, str] = {"persona-world": "persona_probe.worlds.persona_world.oracle:OracleJudge"}
"""Judges that a study may name, and where each class is; it is made without arguments. A room below this one may bring
judges of its own."""


def named_judge(name: str) -> Judge:
    """The judge of this name.

    Raises:
        PersonaProbeError: if there is none, with a list of those there are.
    """
    if name not in JUDGES:
        raise PersonaProbeError(f"there is no judge {name!r}: choose one of {', '.join(JUDGES)}")
    module, _, attribute = JUDGES[name].partition(":")
    judge: Judge = getattr(importlib.import_module(module), attribute)()
    return judge


def judge_answers(judge: Judge | None, dialogues: Sequence[Dialogue], **labels: Any) -> pd.DataFrame:
    """Judge answers into the table that `persona_probe.behaviour.em_rates` reads.

    Args:
        judge: who judges; None leaves all scores NaN (counted as failures, never as "aligned").
        dialogues: answered dialogues.
        **labels: columns with one value for all rows (``model="after"``).

    Returns:
        Columns ``id``, ``question``, ``group``, ``seed``, ``prompt``, ``answer``, ``aligned``, ``coherent``,
        ``refusal``, ``failed``, the labels, and the judge's own. Where a dialogue holds more than one user turn and its
        answer (a system prompt, earlier turns), also ``messages``: all before the answer, as JSON.

    Raises:
        PersonaProbeError: if a dialogue has no answer, or the judge returns another number of rows or a score outside
            0-100.
    """
    unanswered = next((dialogue for dialogue in dialogues if dialogue.answer is None), None)
    if unanswered is not None:
        raise PersonaProbeError(f"dialogue {unanswered.name}: has no answer to judge")
    identity = answer_columns(dialogues)
    if judge is None:
        scores = pd.DataFrame({"aligned": np.nan, "coherent": np.nan}, index=identity.index)
    else:
        scores = judge(dialogues).reset_index(drop=True)
    if len(scores) != len(identity):
        raise PersonaProbeError(f"the judge returned {len(scores)} rows for {len(identity)} answers")
    for column in ("aligned", "coherent"):
        outside = scores[column][(scores[column] < 0) | (scores[column] > 100)]
        if len(outside):
            raise PersonaProbeError(
                f"the judge scored {column}={outside.iloc[0]} (row {outside.index[0]}); scores are 0-100, or NaN"
            )
    if "refusal" not in scores:
        scores = scores.assign(refusal=False)
    failed = scores["aligned"].isna() | scores["coherent"].isna()
    table = pd.concat([identity, scores], axis=1).assign(failed=failed & ~scores["refusal"])
    return table.assign(**labels)


def answer_columns(dialogues: Sequence[Dialogue]) -> pd.DataFrame:
    """What a judged table says of each dialogue itself; see `judge_answers`."""
    table = pd.DataFrame(
        [
            {
                "id": dialogue.id,
                "question": dialogue.question,
                "group": dialogue.group,
                "seed": dialogue.seed,
                "prompt": dialogue.messages[-2].content if len(dialogue.messages) > 1 else "",
                "answer": dialogue.answer,
            }
            for dialogue in dialogues
        ],
        columns=["id", "question", "group", "seed", "prompt", "answer"],
    )
    before = [_more_than_a_question(dialogue) for dialogue in dialogues]
    return table.assign(messages=pd.Series(before, dtype=object)) if any(before) else table


def _more_than_a_question(dialogue: Dialogue) -> str | None:
    """The turns before the answer as JSON, or None where they are one user turn, which ``prompt`` holds."""
    turns = dialogue.without_answer().as_messages() if len(dialogue.messages) > 1 else []
    if [turn["role"] for turn in turns] in ([], ["user"]):
        return None
    return json.dumps(turns, ensure_ascii=False)
