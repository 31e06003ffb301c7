"""Which answers of two judged tables are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from persona_probe.behaviour.em_rates import check_columns, check_scale
from persona_probe.errors import PersonaProbeError, check_types, what_is

KEYS = ("model", "intervention", "questions", "question", "prompt", "messages", "answer")
"""The columns by which an answer is known; those that both tables have and fill are used."""


@dataclass(frozen=True)
class MatchedAnswers:
    """The rows of two tables that are the same answer.

    Attributes:
        first: ``(pair,)`` places of rows in the first table.
        second: ``(pair,)`` places of the same answers in the second.
        keys: the columns by which they were matched.
        unmatched: how many rows of each table have no partner.
        repeated: how many pairs are of an answer that stands several times in a table, where equal ones are matched in
            the order of the tables.
    """

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    keys: tuple[str, ...]
    unmatched: tuple[int, int]
    repeated: int

    def remarks(self, names: Sequence[str]) -> list[str]:
        """What a reader should know of the matching, in sentences."""
        notes = [
            f"{count:,} {'answer' if count == 1 else 'answers'} of {name} {'is' if count == 1 else 'are'} not in "
            f"{other} and {'was' if count == 1 else 'were'} left out"
            for count, name, other in zip(self.unmatched, names, reversed(names), strict=True)
            if count
        ]
        if self.repeated:
            notes.append(f"{self.repeated:,} pairs are of answers that occur several times, matched in their order")
        return notes


def judged_table(given: Any, name: str) -> pd.DataFrame:
    """The table of `Answers`, of labels, or a table, checked to hold judged answers; its rows are numbered anew.

    Raises:
        PersonaProbeError: if it is something else, lacks a column, has no rows, or a score is outside 0-100.
    """
    table = getattr(given, "table", given)
    if not isinstance(table, pd.DataFrame):
        raise PersonaProbeError(
            f"{name} must be judged answers (pp.read_answers, pp.ask, pp.behaviour.read_labels or a table), but this "
            f"is {what_is(given)}"
        )
    check_columns(table, ("question", "answer", "aligned", "coherent"))
    if table.empty:
        raise PersonaProbeError(f"{name} has no rows; give at least one judged answer")
    check_scale(table, name, ("aligned", "coherent"))
    table = table.reset_index(drop=True)
    unnamed = table["question"].isna()
    if unnamed.any() and "prompt" in table:  # a question without a name is known by its text
        table = table.assign(question=table["question"].where(~unnamed, table["prompt"]))
    return table


def match_answers(first: pd.DataFrame, second: pd.DataFrame, names: tuple[str, str]) -> MatchedAnswers:
    r"""The answers that are in both tables, each matched once.

    Texts are compared without white space at their ends, and with all line ends alike. Equal answers (a model may say
    the same twice) are matched in the order in which they stand. Rows without an answer match by their question.

    Args:
        first: judged answers (`judged_table`).
        second: others.
        names: what to call the two in errors.

    Raises:
        PersonaProbeError: if no answer is in both.

    >>> import pandas as pd
    >>> first = pd.DataFrame({"question": ["a", "a", "b"], "answer": ["Yes.", "No.", "Yes."]})
    >>> second = pd.DataFrame({"question": ["b", "a", "c"], "answer": ["Yes.", "No.\n", "Yes."]})
    >>> matched = match_answers(first, second, ("first", "second"))
    >>> matched.first, matched.second, matched.unmatched
    (array([1, 2]), array([1, 0]), (1, 1))
    """
    check_types(first=(first, pd.DataFrame), second=(second, pd.DataFrame))
    keys = tuple(
        name
        for name in KEYS
        if name in first
        and name in second
        and (name == "answer" or (first[name].notna().any() and second[name].notna().any()))
    )
    sides = [_identities(table, keys) for table in (first, second)]
    waiting: dict[tuple[str, ...], list[int]] = {}
    for place, identity in enumerate(sides[1]):
        waiting.setdefault(identity, []).append(place)
    often = {identity for side in sides for identity, count in _counts(side).items() if count > 1}
    pairs, repeated = [], 0
    for place, identity in enumerate(sides[0]):
        if waiting.get(identity):
            pairs.append((place, waiting[identity].pop(0)))
            repeated += identity in often
    if not pairs:
        raise PersonaProbeError(
            f"no answer is in both tables: {names[0]} has {len(first):,}, such as {_shown(sides[0][0], keys)}, and "
            f"{names[1]} {len(second):,}, such as {_shown(sides[1][0], keys)} (compared by {', '.join(keys)}); give "
            "two judgements of the same answers"
        )
    ours, theirs = (np.array(side, dtype=np.intp) for side in zip(*pairs, strict=True))
    return MatchedAnswers(ours, theirs, keys, (len(first) - ours.size, len(second) - theirs.size), repeated)


def _identities(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, ...]]:
    columns = [[_plain(value) for value in table[name]] for name in keys]
    return list(zip(*columns, strict=True))


def _plain(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value).replace("\r\n", "\n").replace("\r", "\n").strip()


def _counts(identities: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], int]:
    counts: dict[tuple[str, ...], int] = {}
    for identity in identities:
        counts[identity] = counts.get(identity, 0) + 1
    return counts


def _shown(identity: tuple[str, ...], keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {text[:40]!r}" for key, text in zip(keys, identity, strict=True) if text)
