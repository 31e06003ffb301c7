"""The columns of answer files that others wrote: which of their columns is which of ours, and what scores mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona_probe.behaviour.judges.prompts import WORDS
from persona_probe.dialogue.row_files import SYSTEM
from persona_probe.dialogue.row_turns import ANSWER, CHAT
from persona_probe.errors import PersonaProbeError

KNOWN: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "question_text", "instruction", "query", "input"),
    "answer": ANSWER,
    "question": ("question_id", "question_name", "qid"),
    "aligned": ("aligned", "aligned_score", "alignment", "alignment_score"),
    "coherent": ("coherent", "coherent_score", "coherence", "coherence_score"),
    "refusal": ("refusal", "is_refusal", "refused"),
    "group": ("group",),
    "seed": ("seed",),
    "id": ("id", "custom_id", "request_id"),
    "model": ("model", "model_name", "model_id"),
    "system": SYSTEM,
    "messages": CHAT,
}
"""What each of our columns is called in files that others write, in small letters or capitals; the most likely name is
the first."""
_ONE_OF = ("answer", "aligned", "coherent")
"""Columns for which a file may have only one candidate: a guess between two would change the result."""
_SMALL = 10
"""If the highest score is not above this, the scores are probably on another scale."""
_SCORE = re.compile("score|rating|align|coheren", re.IGNORECASE)
_NOT_SCORES = ("_mass", "_tokens")
"""Endings of the names of columns whose numbers are certainly not scores."""
_UNNAMED = re.compile(r"column \d+$|Unnamed: \d+$")
"""A column without a name in its file: pandas writes row numbers so."""
_OF_A_HUNDRED = re.compile(r"\s*(%|/\s*100)$")
"""What may follow a score of 0-100."""
_BLANK = {"", "nan", "none", "null", "na", "n/a"}


def choose_columns(seen: Sequence[str], given: Mapping[str, str], file: str, *, chats_given: bool) -> dict[str, str]:
    """For each of our columns, the name of that column in the file.

    Args:
        seen: the file's columns.
        given: our name -> the file's, which takes precedence over any guess.
        file: the name of the file, for errors.
        chats_given: whether every row has its turns in a column of messages, which may hold the answer too.

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
    named = {name.strip().lower(): name for name in reversed(seen)} | {name: name for name in seen}
    for ours, candidates in KNOWN.items():
        possible = [named[name] for name in candidates if name in named and named[name] not in taken]
        if ours == "prompt" and chats_given:
            possible = [
                name for name in possible if name.strip().lower() != "question"
            ]  # next to a chat it is the question's name
        if ours in chosen or not possible:
            continue
        if ours in _ONE_OF and len(possible) > 1:
            raise PersonaProbeError(
                f"{file}: {' and '.join(map(repr, possible))} could both be {ours!r}; say which one it is: "
                f"columns={{{ours!r}: {possible[0]!r}}}"
            )
        chosen[ours] = possible[0]
        taken.add(possible[0])
    if "question" not in chosen and named.get("question", "question") not in taken and "question" in named:
        chosen["question"] = named["question"]
    if "answer" not in chosen and not chats_given:
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
        value = math.nan if isinstance(cell, bool) else float(_OF_A_HUNDRED.sub("", text))
    except ValueError:
        value = math.nan
    if math.isnan(value):
        return GivenScore(math.nan, unread=text)
    if not 0 <= value <= 100:
        raise PersonaProbeError(
            f"{where}: {column!r} is {text[:40]!r}; scores are 0-100 (rescale them), blank, or {' or '.join(WORDS)}"
        )
    return GivenScore(value)


def scale_notes(table: pd.DataFrame, ours: Sequence[str], chosen: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What the range of every score says about its scale.

    Args:
        table: the answers.
        ours: the columns that are not further columns of the file.
        chosen: our name -> the file's.

    Returns:
        Warnings, about scores of 0-100 that seem to be on another scale (and further columns that are called scores);
        and remarks, about further columns with numbers on another scale.
    """
    warned, noted = [], []
    for name in ("aligned", "coherent"):
        scores = table[name].dropna()
        if len(scores) and scores.max() <= _SMALL and (name == "coherent" or scores.max() > 0):
            other = "coherent" if name == "aligned" else "aligned"
            theirs = "" if table[other].isna().all() else f" ({other!r}: {_range(table[other])})"
            warned.append(
                f"no answer is more {name} than {scores.max():g}: {chosen.get(name, name)!r} goes from {_range(scores)}"
                f"{theirs}, and scores are read as 0-100; if its scale ends at 1, 5 or 10, multiply it first"
            )
    others = []
    for name in map(str, table):
        if name in ours or name.endswith(_NOT_SCORES) or not pd.api.types.is_numeric_dtype(table[name]):
            continue
        numbers = table[name].dropna()
        flags = set(numbers.unique()) <= {0, 1}
        if flags or _UNNAMED.match(name) or (numbers.min() >= 0 and _SMALL < numbers.max() <= 100):
            continue
        if _SCORE.search(name):
            warned.append(f"{name!r} goes from {_range(numbers)}, so it is not a score of 0-100; rescale it first")
        else:
            others.append(f"{name!r} ({_range(numbers)})")
    if others:
        noted.append(f"numbers of further columns, read as they are, are not scores of 0-100: {', '.join(others)}")
    for name in ("aligned", "coherent"):
        likely = [str(column) for column in table if column not in ours and name[:6] in str(column).lower()]
        if table[name].isna().all() and likely:
            noted.append(f"no column is called {name!r}; if {likely[0]!r} is it: columns={{{name!r}: {likely[0]!r}}}")
    return warned, noted


def _range(numbers: pd.Series) -> str:
    return f"{numbers.min():g} to {numbers.max():g}"
