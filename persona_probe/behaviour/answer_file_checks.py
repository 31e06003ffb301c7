"""What may be wrong with a table of answers as a whole, where no single row shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from persona_probe.dialogue.row_files import Row
from persona_probe.errors import PersonaProbeError

MODEL_GROUP = "model_group"
"""Our name for a file's ``group`` that says which models belong together (the runs of one recipe)."""
_SCORES = ("aligned", "coherent")
_FEW = 5
"""Scores below which nothing is said of their scale."""
_SHARE = 0.1
"""Share of the rows from which on scores on another scale are no accident."""
_SMALL = 10
"""The highest score of a scale that does not end at 100."""
_APART = 10
"""Points by which two scores of the same text differ noticeably."""


def grouped_models(rows: Sequence[Row], model: str | None, group: str | None, question: str | None) -> bool:
    """Whether a file's groups are groups of models, as Betley et al. write them, and not of questions.

    So it is where every model has one group, there are several groups, and one question was asked in two of them.

    Args:
        rows: the rows of the file.
        model: the file's column that names models.
        group: its column that names groups.
        question: its column that holds the question's name or text.
    """
    if model is None or group is None or question is None:
        return False
    of_model: dict[str, set[str]] = {}
    of_question: dict[str, set[str]] = {}
    for row in rows:
        name, given, asked = (str(row.cells.get(column)) for column in (model, group, question))
        of_model.setdefault(name, set()).add(given)
        of_question.setdefault(asked, set()).add(given)
    several = len({name for names in of_model.values() for name in names}) > 1
    one_each = all(len(names) == 1 for names in of_model.values())
    return several and one_each and any(len(names) > 1 for names in of_question.values())


def check_repeated(table: pd.DataFrame, chosen: Mapping[str, str], places: Sequence[str]) -> list[str]:
    """Raise if one answer, by its id, has different scores; else what to say of rows that are there twice.

    Args:
        table: the answers, as read.
        chosen: our name -> the file's.
        places: for each row, its file and row.

    Returns:
        Remarks, where rows are repeated, or equal answers to one question have scores more than 10 points apart.

    Raises:
        PersonaProbeError: naming both rows and their scores.
    """
    same = [name for name in ("model", "question", "seed", "prompt", "answer") if name in table]
    judged = table[table["answer"].notna() & table[list(_SCORES)].notna().any(axis=1)].fillna({"model": ""})
    remarks = []
    if "id" in chosen and judged["id"].nunique() > len(judged) / 2:  # else an id names a question, not an answer
        repeated = judged[judged.duplicated(["id", *same], keep=False)]
        for _, rows in repeated.groupby(["id", *same], dropna=False):
            first = rows.iloc[0]
            unlike = rows[rows[list(_SCORES)].fillna(-1.0).ne(first[list(_SCORES)].fillna(-1.0)).any(axis=1)]
            if len(unlike):
                raise PersonaProbeError(
                    f"{places[unlike.index[0]]}: is the answer {first['id']!r} of {places[rows.index[0]]} again, with "
                    f"other scores ({_scores(unlike.iloc[0])}, not {_scores(first)}); keep one of the two"
                )
        if extra := int(repeated.duplicated(["id", *same]).sum()):
            remarks.append(f"{extra} rows repeat an earlier row, by their {chosen['id']!r}, and count twice")
    alike = judged[judged.duplicated(same, keep=False)].groupby(same, dropna=False)[list(_SCORES)]
    apart = (alike.max() - alike.min()).max(axis=1)
    differing = apart[apart > _APART]
    if len(differing):
        remarks.append(
            f"{len(differing)} texts are there several times as an answer to one question, with scores that are up to "
            f"{differing.max():.0f} points apart: the judge is not consistent, or rows are there twice"
        )
    return remarks


def mixed_scales(table: pd.DataFrame) -> list[str]:
    """Warnings of scores on two scales in one file: of one model on 0-1, or rows whose scores are both below 1."""
    warned = []
    if "model" in table:
        tops = table.groupby("model")[list(_SCORES)].agg(["max", "count"])
        for name in _SCORES:
            top = tops[name]["max"][tops[name]["count"] >= _FEW]
            small = top[top <= 1]
            if len(small) and (top > _SMALL).any():
                warned.append(
                    f"{name!r} goes up to {small.iloc[0]:g} for the model {small.index[0]!r} and to {top.max():g} for "
                    "others: two scales; multiply the smaller one"
                )
    scored = table[table[list(_SCORES)].notna().all(axis=1)]
    both = ((scored[list(_SCORES)] > 0) & (scored[list(_SCORES)] <= 1)).all(axis=1)
    if not warned and both.sum() >= max(_FEW, _SHARE * len(scored)) and scored["coherent"].max() > _SMALL:
        warned.append(
            f"in {int(both.sum())} of {len(scored)} rows both scores are between 0 and 1, and others go up to "
            f"{scored['coherent'].max():g}: perhaps two scales; multiply the smaller one"
        )
    return warned


def _scores(row: pd.Series) -> str:
    return ", ".join(f"{name} {row[name]:g}" for name in _SCORES)
