"""Which question each row of a table answers, by one rule for everything that must not split a question."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations


def questions_of(*parts: Activations) -> np.ndarray:
    """``(row,)`` what the rows of all parts answer: equal names are one question.

    A dialogue names its question, by its content if nothing else is said (`persona_probe.Dialogue`). In a table from
    elsewhere a row without a question is known by its ``id``, and one without either is like no other row.

    >>> named = pd.DataFrame({"id": ["a", "b"], "question": ["Is it raining?", None]})
    >>> bare = pd.DataFrame({"n_tokens": [3]})
    >>> rows = [Activations(np.zeros((len(table), 1, 2)), table, (0,)) for table in (named, bare)]
    >>> [name[0] for name in questions_of(*rows)]
    ['question', 'id', 'row']
    """
    return _names(parts, ("question", "id"))


def dialogues_of(*parts: Activations) -> np.ndarray:
    """``(row,)`` which dialogue each row is, by its ``id``; a row without one is like no other row."""
    return _names(parts, ("id",))


def _names(parts: tuple[Activations, ...], columns: tuple[str, ...]) -> np.ndarray:
    names: list[tuple[str, Hashable]] = []
    for part in parts:
        known = [(column, part.table[column].tolist()) for column in columns if column in part.table]
        for row in range(len(part)):
            given = ((column, str(cells[row])) for column, cells in known if not pd.isna(cells[row]))
            names.append(next(given, ("row", len(names))))
    found = np.empty(len(names), dtype=object)
    found[:] = names
    return found
