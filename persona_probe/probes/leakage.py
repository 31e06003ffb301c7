"""Alarms for what stands on both sides of a split: the same dialogue, the same prompt, or nearly the same text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Int
from sklearn.feature_extraction.text import HashingVectorizer

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning

OnLeak = Literal["warn", "raise", "ignore"]
Kind = Literal["same dialogue", "same prompt", "near-duplicate text"]
SIMILAR = 0.8
"""Cosine similarity of shingle counts from which two texts count as near-duplicates."""
_SHINGLE, _BUCKETS, _ROWS = 9, 1024, 2048
_EXAMPLES = 3


class LeakageWarning(PersonaProbeWarning):
    """A probe was tested on something that it was trained on."""


@dataclass(frozen=True)
class Leak:
    """Something that stands in training and test.

    Attributes:
        kind: ``same dialogue`` (its id or its whole text), ``same prompt`` (the question, or all that comes before the
            answer), or ``near-duplicate text`` (last question and answer, by shingles of characters).
        n: how many dialogues have a counterpart in another fold.
        examples: up to three pairs of row numbers, each with one row in another fold than the other.
    """

    kind: Kind
    n: int
    examples: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        """In words, with an example."""
        one, other = self.examples[0]
        return f"{self.kind}: {self.n} dialogues stand on both sides of the split (rows {one} and {other}, for example)"


def find_leaks(
    folds: Int[np.ndarray, "... dialogue"], table: pd.DataFrame, dialogues: Sequence[Dialogue] | None = None
) -> list[Leak]:
    """What a split into folds leaves on both sides.

    Args:
        folds: the fold in which each dialogue is tested; it is in training for all others.
        table: an `Activations` table: its columns ``id`` and ``question`` are looked at, where there are such.
        dialogues: the dialogues themselves; without them texts cannot be compared.

    Returns:
        One leak a kind, those that there are; texts that are the same are not counted as nearly the same.

    Raises:
        PersonaProbeError: if there are not as many dialogues as folds.
    """
    if dialogues is not None and len(dialogues) != len(folds):
        raise PersonaProbeError(f"probe: {len(dialogues)} dialogues= for {len(folds)} rows; give those of the rows")
    same, asked = [_column(table, "id")], [_column(table, "question")]
    if dialogues is not None:
        same.append([_whole(dialogue) for dialogue in dialogues])
        asked.append([_whole(dialogue.without_answer()) for dialogue in dialogues])
    leaks = [
        _leak("same dialogue", [pair for keys in same for pair in _across(keys, folds)]),
        _leak("same prompt", [pair for keys in asked for pair in _across(keys, folds)]),
    ]
    if dialogues is not None:
        leaks.append(_leak("near-duplicate text", _alike([_told(dialogue) for dialogue in dialogues], folds)))
    return [leak for leak in leaks if leak is not None]


def check_on_leak(on_leak: str) -> None:
    """Refuse an ``on_leak`` that does not exist."""
    if on_leak not in get_args(OnLeak):
        raise PersonaProbeError(f"on_leak is {on_leak!r}; choose one of {', '.join(get_args(OnLeak))}")


def report_leaks(leaks: Sequence[Leak], on_leak: str) -> None:
    """Warn of ``leaks`` (`LeakageWarning`), or raise, or do neither.

    Raises:
        PersonaProbeError: if there is a leak and ``on_leak`` is ``raise``.
    """
    if not leaks or on_leak == "ignore":
        return
    said = (
        f"the probe is tested on what it was trained on: {'; '.join(map(str, leaks))}. Give groups= that keep such "
        "dialogues together, or say on_leak='ignore' if this is meant"
    )
    if on_leak == "raise":
        raise PersonaProbeError(said)
    warnings.warn(said, LeakageWarning, stacklevel=3)


def _column(table: pd.DataFrame, name: str) -> list[object]:
    if name not in table:
        return []
    column = table[name]
    return list(column.astype(object).where(column.notna(), None))


def _whole(dialogue: Dialogue) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, message.content.strip()) for message in dialogue.messages)


def _told(dialogue: Dialogue) -> str:
    """Last question and answer: a system prompt or a history that many share would make all alike."""
    asked = next((message.content for message in reversed(dialogue.messages) if message.role == "user"), "")
    return " ".join(f"{asked} {dialogue.answer or ''}".lower().split())


def _across(keys: Sequence[object], folds: np.ndarray) -> list[tuple[int, int]]:
    """For each row whose key stands in another fold too, the row and the first such counterpart."""
    first: dict[object, dict[int, int]] = {}
    for row, key in enumerate(keys):
        if key is not None:
            first.setdefault(key, {}).setdefault(int(folds[row]), row)
    pairs = []
    for row, key in enumerate(keys):
        others = [] if key is None else [other for fold, other in first[key].items() if fold != folds[row]]
        if others:
            pairs.append((row, others[0]))
    return pairs


def _alike(texts: Sequence[str], folds: np.ndarray) -> list[tuple[int, int]]:
    """Rows with a nearly, but not wholly, equal text in another fold, each with one such counterpart.

    Counts of shingles (nine characters: longer than a word, so that the same few words in another order are another
    text) are hashed with random signs into 1,024 numbers (Weinberger et al. 2009, "Feature hashing for
    large scale multitask learning"), which keeps cosines within about 0.03: 10,000 texts then compare in seconds.
    """
    shingles = HashingVectorizer(analyzer="char", ngram_range=(_SHINGLE, _SHINGLE), n_features=_BUCKETS)
    vectors = shingles.transform(texts).astype(np.float32).toarray()
    exact = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)[1]
    counterpart: dict[int, int] = {}
    for start in range(0, len(texts), _ROWS):
        rows = slice(start, start + _ROWS)
        near = vectors[rows] @ vectors[start:].T >= SIMILAR
        for own, other in np.argwhere(near) + start:
            if folds[own] != folds[other] and exact[own] != exact[other]:
                counterpart.setdefault(int(own), int(other))
                counterpart.setdefault(int(other), int(own))
    return sorted(counterpart.items())


def _leak(kind: Kind, pairs: Sequence[tuple[int, int]]) -> Leak | None:
    rows = {row for row, _ in pairs}
    distinct = dict.fromkeys((min(pair), max(pair)) for pair in pairs)
    return Leak(kind, len(rows), tuple(list(distinct)[:_EXAMPLES])) if rows else None
