"""Alarms for what is on both sides of a split: the same dialogue, the same prompt, or nearly the same text."""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize

from persona_probe.activations.activations import identity
from persona_probe.dialogue.dialogue import Dialogue, Message
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning
from persona_probe.probes.inputs import check_rows

OnLeak = Literal["warn", "raise", "ignore"]
Kind = Literal["same dialogue", "same question and answer", "same prompt", "near-duplicate text"]
SIMILAR = 0.8
"""Cosine similarity of weighted shingle counts above which two texts count as near-duplicates."""
_SHINGLE, _HASHED, _BUCKETS, _ROWS = 9, 2**20, 1024, 512
_EXAMPLES = 3


class LeakageWarning(PersonaProbeWarning):
    """A probe was tested on something that it was trained on."""


@dataclass(frozen=True)
class Leak:
    """Something that is in training and in test.

    Attributes:
        kind: ``same dialogue`` (its id or its whole text), ``same question and answer`` (under different system
            prompts: no wording of the answer is new to the probe), ``same prompt`` (the question, or everything before
            the answer except a system prompt), or ``near-duplicate text`` (last question, or last question and
            answer, by shingles of characters). Texts are compared without case, punctuation and spacing.
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
    """The leaks of a split into folds: what it leaves on both sides.

    Args:
        folds: the fold in which each dialogue is tested; it is in training for all others.
        table: an `Activations` table: its columns ``id`` and ``question`` are compared, where it has them.
        dialogues: the dialogues themselves; without them texts cannot be compared.

    Returns:
        One leak for each kind that occurs. Dialogues that are the same in one sense are not counted again as the same
        in a weaker one, but a dialogue's prompt is always compared.

    Raises:
        PersonaProbeError: if ``dialogues`` are not those of the table, in its order.

    Examples:
        The first and the third dialogue ask the same question, and are tested in different folds.

        >>> questions = ["Is it raining?", "Is it late?", "Is it raining?"]
        >>> table = pd.DataFrame({"id": ["a", "b", "c"], "question": questions})
        >>> for leak in find_leaks(np.array([0, 0, 1]), table):
        ...     print(leak)
        same prompt: 2 dialogues stand on both sides of the split (rows 0 and 2, for example)
    """
    ids, asked = _column(table, "id"), _column(table, "question")
    if dialogues is None:
        spoken: list[_Codes] = []
        same, prompts = [ids], [asked]
    else:
        check_rows("dialogues", table, pd.DataFrame([identity(dialogue) for dialogue in dialogues]))
        same = [ids, _codes([_words(dialogue.messages) for dialogue in dialogues])]
        spoken = [_codes([_words(_spoken(dialogue)) for dialogue in dialogues])]
        prompts = [asked, _codes([_words(_spoken(dialogue.without_answer())) for dialogue in dialogues])]
    exact: tuple[tuple[Kind, list[_Codes], list[_Codes]], ...] = (
        ("same dialogue", same, []),
        ("same question and answer", spoken, same),
        ("same prompt", prompts, []),
    )
    leaks = [_leak(kind, _across(keys, known, folds)) for kind, keys, known in exact]
    if dialogues is not None:
        known = [*same, *spoken, *prompts]
        asked_last = [_last_question(dialogue) for dialogue in dialogues]
        whole = [f"{text} {dialogue.answer or ''}" for text, dialogue in zip(asked_last, dialogues, strict=True)]
        near = {row: other for texts in (asked_last, whole) for row, other in _alike(texts, known, folds).items()}
        leaks.append(_leak("near-duplicate text", near))
    return [leak for leak in leaks if leak is not None]


def check_on_leak(on_leak: str) -> None:
    """Raise if there is no such choice of ``on_leak``."""
    if on_leak not in get_args(OnLeak):
        raise PersonaProbeError(f"on_leak is {on_leak!r}; choose one of {', '.join(get_args(OnLeak))}")


def report_leaks(leaks: Sequence[Leak], on_leak: str) -> None:
    """Warn about ``leaks`` (`LeakageWarning`), or raise, or do neither.

    Raises:
        PersonaProbeError: if there is a leak and ``on_leak`` is ``raise``.
    """
    if not leaks or on_leak == "ignore":
        return
    message = (
        f"the probe is tested on what it was trained on: {'; '.join(map(str, leaks))}. Give groups= that keep such "
        "dialogues together, or on_leak='ignore' if this is intended"
    )
    if on_leak == "raise":
        raise PersonaProbeError(message)
    warnings.warn(message, LeakageWarning, stacklevel=3)


_Codes: TypeAlias = np.ndarray
"""``(row,)`` integers, equal where two rows are the same; -1 where there is nothing to compare."""


def _codes(keys: Sequence[Hashable]) -> _Codes:
    column = np.empty(len(keys), dtype=object)
    column[:] = keys
    return np.asarray(pd.factorize(column)[0])


def _column(table: pd.DataFrame, name: str) -> _Codes:
    if name not in table:
        return np.full(len(table), -1)
    return _codes([_normal(value) if isinstance(value, str) else value for value in table[name]])


def _normal(text: str) -> str:
    """The words of a text only; texts without words (other scripts' punctuation, emoji) stay as they are."""
    return " ".join(re.findall(r"\w+", text.casefold())) or " ".join(text.split())


def _words(messages: Sequence[Message]) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, _normal(message.content)) for message in messages)


def _spoken(dialogue: Dialogue) -> list[Message]:
    """The turns without system prompts."""
    return [message for message in dialogue.messages if message.role != "system"]


def _last_question(dialogue: Dialogue) -> str:
    """The words of the last question; a history that many dialogues share would make all of them alike."""
    return next((_normal(message.content) for message in reversed(dialogue.messages) if message.role == "user"), "")


def _across(keys: Sequence[_Codes], known: Sequence[_Codes], folds: np.ndarray) -> dict[int, int]:
    """Rows that share a key with a row of another fold, each with one such counterpart, pairs in ``known`` left out."""
    counterpart: dict[int, int] = {}
    for codes in keys:
        members = pd.Series(np.arange(len(codes)))[codes >= 0].groupby(codes[codes >= 0])
        for rows in (group.to_numpy() for _, group in members if len(group) > 1):
            for start in range(0, len(rows), _ROWS):
                ones = rows[start : start + _ROWS]
                counterpart |= _counterparts(np.ones((len(ones), len(rows)), dtype=bool), ones, rows, known, folds)
    return counterpart


def _counterparts(
    near: Bool[np.ndarray, "one other"],
    ones: np.ndarray,
    others: np.ndarray,
    known: Sequence[_Codes],
    folds: np.ndarray,
) -> dict[int, int]:
    """For each of ``ones`` the first of ``others`` that is ``near``, in another fold, and not the same by ``known``."""
    near &= ones[:, None] != others[None]
    close = near.any(axis=1)  # usually true of few rows only
    near, ones = near[close], ones[close]
    near &= folds[ones, None] != folds[None, others]
    for codes in known:
        near &= (codes[ones, None] != codes[None, others]) | (codes[ones, None] < 0)
    matched = np.flatnonzero(near.any(axis=1))
    return dict(zip(ones[matched].tolist(), others[near[matched].argmax(axis=1)].tolist(), strict=True))


def _alike(texts: Sequence[str], known: Sequence[_Codes], folds: np.ndarray) -> dict[int, int]:
    """Rows with a nearly equal text in another fold, each with one such counterpart, pairs in ``known`` left out.

    Counts of shingles (nine characters: longer than a word, so that the same few words in another order are another
    text) are weighted by rarity, so that the wording of a template that many texts share does not make them alike.
    They are summed with random signs into 1,024 numbers (Weinberger et al. 2009, "Feature hashing for large scale
    multitask learning"), which keeps cosines within about 0.03: 10,000 texts are then compared in seconds.
    """
    shingles = HashingVectorizer(
        analyzer="char", ngram_range=(_SHINGLE, _SHINGLE), n_features=_HASHED, norm=None, alternate_sign=False
    )
    counts = shingles.transform(texts).astype(np.float32)
    spread = np.bincount(counts.indices, minlength=_HASHED)
    counts.data *= np.log1p(len(texts) / spread[counts.indices]).astype(np.float32)
    rng = np.random.default_rng(0)
    sign, place = rng.choice(np.array([-1, 1], dtype=np.float32), _HASHED), rng.integers(_BUCKETS, size=_HASHED)
    vectors = (normalize(counts) @ csr_matrix((sign, (np.arange(_HASHED), place)), (_HASHED, _BUCKETS))).toarray()
    everyone = np.arange(len(texts))
    counterpart: dict[int, int] = {}
    for start in range(0, len(texts), _ROWS):
        rows, rest = everyone[start : start + _ROWS], everyone[start:]
        near = vectors[rows] @ vectors[rest].T >= SIMILAR
        counterpart |= _counterparts(near.T.copy(), rest, rows, known, folds)
        counterpart |= _counterparts(near, rows, rest, known, folds)
    return counterpart


def _leak(kind: Kind, counterpart: Mapping[int, int]) -> Leak | None:
    distinct = dict.fromkeys((min(pair), max(pair)) for pair in sorted(counterpart.items()))
    return Leak(kind, len(counterpart), tuple(list(distinct)[:_EXAMPLES])) if counterpart else None
