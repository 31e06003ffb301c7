"""Answer files of several models as one table of answers."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from persona_probe.behaviour.answer_files import read_answers
from persona_probe.behaviour.answers import Answers
from persona_probe.dialogue.row_files import as_path, existing, kind_of
from persona_probe.errors import PATH, PersonaProbeError, PersonaProbeWarning, check_types

Given = str | Path | Answers
_FEW = 5


@dataclass(frozen=True)
class FilesRead:
    """The answers of all files, with a ``model`` in every row.

    Attributes:
        table: the answers.
        files: the files, as given.
        columns: for each of our columns, the file's, of the first file where they differ.
        remarks: what to know about how they were read, warnings among them, each with its file.
    """

    table: pd.DataFrame
    files: tuple[str, ...]
    columns: Mapping[str, str]
    remarks: tuple[str, ...]


def read_files(
    given: Given | Sequence[Given] | Mapping[str, Given],
    columns: Mapping[str, str] | None,
    requests: str | Path | None,
) -> FilesRead:
    """All answers; a file without a column of models is named after itself, or as the mapping names it.

    Input files of a batch among them give the questions of its output.

    Raises:
        PersonaProbeError: as `read_answers`, if there is no file, or the scores of a model are on a scale of 0 to 1.
    """
    named = _named(given)
    batches = [name for name, part in named.items() if not isinstance(part, Answers) and _holds_requests(part)]
    if batches and requests is None:
        requests = named[batches[0]]  # type: ignore[assignment]
        del named[batches[0]]
    if not named:
        raise PersonaProbeError("verdict: there is no file with answers; give at least one")
    alone = len(named) == 1
    used: dict[str, str] = {}
    tables, remarks = [], []
    for name, part in named.items():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PersonaProbeWarning)
            answers = part if isinstance(part, Answers) else _read(part, columns, requests)
        said = [str(warning.message) for warning in caught]
        place = answers.source or name
        prefix = "" if alone else f"{place}: "
        remarks += [
            f"{prefix}{remark}" for remark in (*(text.removeprefix(f"{place}: ") for text in said), *answers.remarks)
        ]
        for text in said:
            warnings.warn(text, PersonaProbeWarning, stacklevel=3)
        table = answers.table
        if isinstance(given, Mapping) or "model" not in table or table["model"].isna().all():
            table = table.assign(model=name)
            if not isinstance(given, Mapping):
                remarks.append(f"{prefix}No column names the model, so it is called {name!r}, after the file")
        used = {**answers.columns, **used}
        _check_scale(table, place)
        tables.append(table)
    sources = tuple(part.source or name if isinstance(part, Answers) else str(part) for name, part in named.items())
    return FilesRead(pd.concat(tables, ignore_index=True), sources, used, tuple(dict.fromkeys(remarks)))


def _named(given: Given | Sequence[Given] | Mapping[str, Given]) -> dict[str, Given]:
    if isinstance(given, Mapping):
        check_types(files=(dict(given), {str: (Answers, *PATH)}))
        return {str(name): part for name, part in given.items()}
    parts = [given] if isinstance(given, str | os.PathLike | Answers) else list(given)
    for part in parts:
        check_types(files=(part, Answers, PATH))
    paths = [Path(part) for part in parts if not isinstance(part, Answers)]
    twice = len({path.resolve() for path in paths}) < len(paths)
    if twice:
        raise PersonaProbeError("verdict: a file is given twice; give each once")
    stems = [_stem(path) for path in paths]
    names = iter(stems if len(set(stems)) == len(stems) else [f"{path.parent.name}/{_stem(path)}" for path in paths])
    if len(set(stems)) < len(stems) and len({f"{path.parent.name}/{_stem(path)}" for path in paths}) < len(paths):
        names = iter([str(path) for path in paths])
    return {
        f"answers {number}" if isinstance(part, Answers) else next(names): part for number, part in enumerate(parts, 1)
    }


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def _holds_requests(part: str | Path) -> bool:
    """Whether this is the input of a batch: requests, and no answers."""
    if kind_of(as_path(part)) != ".jsonl" or Path(part).is_dir():
        return False
    with existing(part).open(encoding="utf-8", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    try:
        record = json.loads(first)
    except ValueError:
        return False
    return isinstance(record, dict) and {"custom_id", "body"} <= set(record) and "response" not in record


def _read(path: str | Path, columns: Mapping[str, str] | None, requests: str | Path | None) -> Answers:
    return read_answers(path, columns=columns, requests=requests if kind_of(as_path(path)) == ".jsonl" else None)


def _check_scale(table: pd.DataFrame, place: str) -> None:
    for name, rows in table.groupby("model"):
        scores = rows[["aligned", "coherent"]].dropna().to_numpy(dtype=float)
        if len(scores) >= _FEW and scores.max() <= 1:
            raise PersonaProbeError(
                f"{place}: all scores of {name!r} are between {scores.min():g} and "
                f"{scores.max():g}, and scores are 0-100: multiply both columns by 100"
            )
