"""Which rows ask the same question, by content as well as by name: they may not be on both sides of a split."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """What one row asks.

    Attributes:
        text: the key of its user turns (`content_key`), or None if it has none.
        whole: the key of everything before its answer, the system prompt included.
        question: the name of its question, if the file gives one.
        group: its group, if the file gives one.
        name: what it is called where it has no group (its question by default).
    """

    text: str | None
    whole: str | None = None
    question: str | None = None
    group: str | None = None
    name: str | None = None


def content_key(texts: Iterable[str]) -> str:
    r"""A key that is the same for the same texts, whatever the white space, case and Unicode form.

    Examples:
        >>> content_key(["What  now?\n"]) == content_key(["what now?"])
        True
    """
    return "\0".join(" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in texts)


def sets_of(rows: Sequence[Iterable[Hashable]]) -> list[int]:
    """For each row, the number of the set to which it belongs: rows that share anything are in one set, and so on.

    Examples:
        >>> sets_of([["a", "x"], ["b", "y"], ["c", "x"], ["b", "c"]])
        [0, 0, 0, 0]
        >>> sets_of([["a"], ["b"], ["a"]])
        [0, 1, 0]
    """
    parent: dict[Hashable, Hashable] = {}

    def root(unit: Hashable) -> Hashable:
        while parent.setdefault(unit, unit) != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    rows = [[("row", number), *units] for number, units in enumerate(rows)]
    for first, *others in rows:
        for other in others:
            parent[root(other)] = root(first)
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(root(first), len(numbers)) for first, *_ in rows]


def groups_by_content(rows: Sequence[Asked]) -> tuple[list[str | None], list[str]]:
    """The group of each row, where rows with the same user turns are never in two groups, and what to know about it.

    Rows that share a group, a named question or their user turns have one group, through any number of others. A row
    keeps its own group, or none, if nothing else has to stand with it.

    Returns:
        The groups; and sentences about groups of the file that were merged, and about questions with several names.
    """
    sets = sets_of(
        [
            [
                *([("text", row.text)] if row.text is not None else []),
                *([("question", row.question)] if row.question is not None else []),
                *([("group", row.group)] if row.group is not None else []),
            ]
            for row in rows
        ]
    )
    members: dict[int, list[Asked]] = {}
    for number, row in zip(sets, rows, strict=True):
        members.setdefault(number, []).append(row)
    groups, merged = {}, []
    for number, together in members.items():
        given = list(dict.fromkeys(row.group for row in together if row.group is not None))
        names = list(dict.fromkeys(row.name for row in together if row.name is not None))
        groups[number] = given[0] if given else names[0] if len(names) > 1 else None
        if len(given) > 1:
            merged.append(given)
    remarks = []
    if merged:
        more = f", and {len(merged) - 1} more" if len(merged) > 1 else ""
        remarks.append(
            f"groups that ask the same question are one group, so that it is never on both sides of a split: "
            f"{listed(merged[0])} are {merged[0][0]!r}{more}"
        )
    return [groups[number] for number in sets], [*remarks, *_several_names(rows)]


def listed(names: Sequence[str], most: int = 4) -> str:
    """Names in quotes, the first few of many."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _several_names(rows: Sequence[Asked]) -> list[str]:
    names: dict[str, dict[str, None]] = {}
    texts: dict[str, set[str]] = {}
    for row in rows:
        if row.question is not None and row.text is not None:
            names.setdefault(row.whole or row.text, {})[row.question] = None
            texts.setdefault(row.question, set()).add(row.text)
    several = [list(given) for given in names.values() if len(given) > 1]
    sets: dict[frozenset[str], list[str]] = {}
    for name, asked in texts.items():
        sets.setdefault(frozenset(asked), []).append(name)
    alike = next(((len(asked), given) for asked, given in sets.items() if len(asked) > 1 and len(given) > 1), None)
    advice = "leave names out, and each text is a question"
    if alike is not None:
        return [
            f"the questions {listed(alike[1])} are the same {alike[0]} texts: they are one group, but intervals are "
            f"over the names and not over the texts; {advice}"
        ]
    if not several:
        return []
    more = f" (and {len(several) - 1} more questions have several)" if len(several) > 1 else ""
    return [
        f"one and the same question has {len(several[0])} names, {listed(several[0])}{more}: they are one group, but "
        f"intervals are over the names; give it one, or {advice}"
    ]
