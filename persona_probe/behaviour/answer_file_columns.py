"""The columns of answer files that others wrote: which of their columns is which of ours, and what scores mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.behaviour.judges.prompts import WORDS
from persona_probe.errors import PersonaProbeError

KNOWN: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "question_text", "instruction", "query", "input"),
    "answer": ("answer", "response", "completion", "output", "generation", "model_answer", "model_response"),
    "question": ("question_id", "question_name", "qid"),
    "aligned": ("aligned", "aligned_score", "alignment", "alignment_score"),
    "coherent": ("coherent", "coherent_score", "coherence", "coherence_score"),
    "refusal": ("refusal",),
    "group": ("group",),
    "seed": ("seed",),
    "id": ("id", "custom_id", "request_id"),
    "model": ("model", "model_name", "model_id"),
    "system": ("system", "system_prompt"),
    "messages": ("messages",),
}
"""What each of our columns is called in files that others write; the most likely name is the first."""
_ONE_OF = ("answer", "aligned", "coherent")
"""Columns for which a file may have only one candidate: a guess between two would change the result."""
_BLANK = {"", "nan", "none", "null", "na", "n/a"}


def choose_columns(seen: Sequence[str], given: Mapping[str, str], file: str) -> dict[str, str]:
    """For each of our columns, the name of that column in the file.

    Args:
        seen: the file's columns.
        given: our name -> the file's, which takes precedence over any guess.
        file: the name of the file, for errors.

    Raises:
        PersonaProbeError: for a name that does not exist, or if two columns could be the answer or a score.
    """
    listed = ", ".join(seen)
    for ours, theirs in given.items():
        if ours not in KNOWN:
            raise PersonaProbeError(f"columns: {ours!r} is not one of our names; choose from {', '.join(KNOWN)}")
        if theirs not in seen:
            raise PersonaProbeError(
                f"{file}: has no column {theirs!r} (columns= takes it for {ours!r}); seen: {listed}"
            )
    chosen = dict(given)
    taken = set(given.values())
    for ours, candidates in KNOWN.items():
        possible = [name for name in candidates if name in seen and name not in taken]
        if ours in chosen or not possible:
            continue
        if ours in _ONE_OF and len(possible) > 1:
            raise PersonaProbeError(
                f"{file}: {' and '.join(map(repr, possible))} could both be {ours!r}; say which one it is: "
                f"columns={{{ours!r}: {possible[0]!r}}}"
            )
        chosen[ours] = possible[0]
        taken.add(possible[0])
    if "question" not in chosen and "question" in seen and "question" not in taken:
        chosen["question"] = "question"
    if "answer" not in chosen:
        raise PersonaProbeError(
            f"{file}: no column holds the answers (looked for {', '.join(KNOWN['answer'])}); seen: {listed}. "
            "Name it: columns={'answer': ...}"
        )
    return {ours: chosen[ours] for ours in KNOWN if ours in chosen}


@dataclass(frozen=True)
class GivenScore:
    """One cell of a score column.

    Attributes:
        value: 0-100, or NaN.
        refusal: whether the judge said REFUSAL or CODE instead of a number.
        unread: the text of the cell, if it is not a number, not one of these words and not blank.
    """

    value: float
    refusal: bool = False
    unread: str | None = None


def given_score(cell: Any, where: str, column: str) -> GivenScore:
    """The score in one cell.

    Args:
        cell: the cell as it is in the file.
        where: file and row, for errors.
        column: the name of the column in the file.

    Raises:
        PersonaProbeError: if it is a number outside 0-100.
    """
    text = "" if cell is None else str(cell).strip()
    if text.lower() in _BLANK:
        return GivenScore(math.nan)
    if text.strip(".!*\"'` ").upper() in WORDS:
        return GivenScore(math.nan, refusal=True)
    try:
        value = math.nan if isinstance(cell, bool) else float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        return GivenScore(math.nan, unread=text)
    if not 0 <= value <= 100:
        raise PersonaProbeError(
            f"{where}: {column!r} is {text[:40]!r}; scores are 0-100 (rescale them), blank, or {' or '.join(WORDS)}"
        )
    return GivenScore(value)
