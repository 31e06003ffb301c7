"""Answers as others write them: evaluation CSVs of EM papers, and dumps of vLLM and the OpenAI batch API."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.answer_file_columns import choose_columns, given_score
from persona_probe.behaviour.answer_rows import Row, read_rows
from persona_probe.behaviour.answers import IDENTITY, VERDICT, Answers
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning

_RENDERED = re.compile(r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|\[INST\]|<\|user\|>")
_NOT_KEPT = {"failed"}


def read_answers(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    requests: str | Path | None = None,
    **labels: Any,
) -> Answers:
    """Read judged or unjudged answers from a file that somebody else wrote.

    Known by their column names are evaluation CSVs and JSON lines in the shapes of Betley et al. 2025 (``question``,
    ``answer``, ``question_id``, ``aligned``, ``coherent``) and Turner et al. 2025 (``question``, ``response``, ...),
    ``messages`` that end with an answer, vLLM's ``RequestOutput`` (``prompt``, ``outputs``), chat and completion
    responses (``choices``), output files of the OpenAI batch API and of vLLM's ``run_batch`` (``response``), and the
    tables that this package writes. Several answers to one request become a row each.

    ``question_id`` (or else the question's text) becomes ``question``, which intervals are over, and the text
    ``prompt``. A score that says REFUSAL or CODE is a refusal; one that is blank or no number is NaN and a failure; an
    answer that is missing (a failed request) is a failure.

    Args:
        path: a ``.csv``, ``.tsv``, ``.jsonl``, ``.json`` or ``.parquet`` file.
        columns: our name -> the file's, where the file calls them otherwise (``{"answer": "completion"}``); ours are
            ``prompt``, ``answer``, ``question``, ``aligned``, ``coherent``, ``refusal``, ``group``, ``seed``, ``id``,
            ``model``, ``system``, ``messages``.
        requests: the input file of a batch, whose output does not repeat the questions; matched by ``custom_id``.
        **labels: columns with one value for all rows (``model="after"``); they replace the file's own.

    Returns:
        The answers; ``columns`` says which column was taken for which, ``remarks`` what else to know. Columns that are
        not ours are kept as they are.

    Raises:
        PersonaProbeError: naming file, row, column and value, for a file that is missing, empty or broken, a column
            that is not there or could be either of two, a text that is none, or a score outside 0-100.
    """
    rows = read_rows(path, requests)
    seen = list(dict.fromkeys(name for row in rows for name in row.cells))
    chosen = choose_columns(seen, columns or {}, str(path))
    if "prompt" not in chosen and "messages" not in chosen:
        raise PersonaProbeError(
            f"{path}: no column holds the questions; seen: {', '.join(seen)}. Name it (columns={{'prompt': ...}}), or "
            "give a batch's input file (requests=...)"
        )
    reading = _Reading(chosen)
    table = pd.DataFrame([reading.row(row) for row in rows])
    if table["messages"].isna().all():
        table = table.drop(columns="messages")
    chosen = {ours: theirs for ours, theirs in chosen.items() if ours not in labels}
    if Path(path).suffix.lower() in (".csv", ".tsv"):
        table = _with_numbers(table)
    _warn(table, str(path))
    return Answers(table.assign(**labels), str(path), chosen, tuple(reading.remarks(len(table))))


@dataclass
class _Reading:
    """Turns rows of a file into rows of our table, and keeps count of what was odd."""

    chosen: Mapping[str, str]
    unread: list[str] = field(default_factory=list)
    unanswered: int = 0

    def row(self, row: Row) -> dict[str, Any]:
        turns = self._turns(row)
        if not turns:
            raise PersonaProbeError(
                f"{row.where}: holds no question; seen: {', '.join(row.cells)}. The output of a batch repeats none: "
                "give its input file (requests=...)"
            )
        prompt = turns[-1]["content"]
        answer = self._text(row, "answer")
        if answer is not None and not answer.strip():
            answer = None  # nothing was said, or the cell is blank: whatever the scores are of, it is not this answer
        self.unanswered += answer is None
        name = self._cell(row, "id")
        scores = {column: self._score(row, column) for column in ("aligned", "coherent")}
        refusal = any(score.refusal for score in scores.values()) or self._truth(row, "refusal")
        values = {column: score.value if answer is not None else np.nan for column, score in scores.items()}
        failed = (np.isnan(values["aligned"]) or np.isnan(values["coherent"])) and not refusal
        kept = {
            key: value
            for key, value in row.cells.items()
            if key not in self.chosen.values() and key not in _NOT_KEPT and isinstance(value, str | int | float)
        }
        question = self._cell(row, "question")
        ours = {
            "id": str(name) if name is not None else row.where.rsplit("/", 1)[-1],
            "question": str(question) if question is not None else prompt,
            "group": self._text(row, "group"),
            "seed": self._whole(row, "seed"),
            "prompt": prompt,
            "answer": answer,
            **values,
            "refusal": refusal,
            "failed": failed,
        }
        more = {"model": str(model)} if (model := self._cell(row, "model")) is not None else {}
        before = json.dumps(turns, ensure_ascii=False) if len(turns) > 1 else None
        return {**ours, **more, "messages": before, **{key: kept[key] for key in kept if key not in {*ours, *more}}}

    def remarks(self, rows: int) -> list[str]:
        """What the reader should know, in sentences."""
        said = []
        if self.unanswered:
            said.append(f"{self.unanswered} of {rows} rows hold no answer and count as failures")
        if self.unread:
            more = f", and {len(self.unread) - 1} more" if len(self.unread) > 1 else ""
            said.append(f"Scores that are no number count as failures: {self.unread[0]}{more}")
        return said

    def _cell(self, row: Row, ours: str) -> Any:
        value = row.cells.get(self.chosen[ours]) if ours in self.chosen else None
        blank = value is None or (isinstance(value, float) and np.isnan(value))
        # In a CSV an empty cell is how "none" is written, but an answer may well be empty.
        return None if blank or (value == "" and ours not in ("answer", "prompt")) else value

    def _text(self, row: Row, ours: str) -> str | None:
        value = self._cell(row, ours)
        if value is not None and not isinstance(value, str):
            raise PersonaProbeError(f"{row.where}: {self.chosen[ours]!r} is {value!r}; it must be text")
        return value

    def _turns(self, row: Row) -> list[dict[str, str]]:
        """All that stands before the answer."""
        given = self._cell(row, "messages")
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except json.JSONDecodeError as error:
                raise PersonaProbeError(f"{row.where}: 'messages' is not JSON ({error.msg}): {given[:60]!r}") from error
        if given is None:
            prompt, system = self._text(row, "prompt"), self._text(row, "system")
            if prompt is None:
                return []
            given = [{"role": "system", "content": system}] if system else []
            given = [*given, {"role": "user", "content": prompt}]
        try:
            turns = Dialogue.from_messages(given).as_messages()
        except PersonaProbeError as error:
            raise PersonaProbeError(f"{row.where}: {error}") from error
        if turns[-1]["role"] == "assistant":
            raise PersonaProbeError(f"{row.where}: its messages end with an answer, and the row has another one")
        return turns

    def _score(self, row: Row, ours: str) -> Any:
        column = self.chosen.get(ours, ours)
        score = given_score(row.cells.get(column), row.where, column)
        if score.unread is not None:
            self.unread.append(f"{column!r} is {score.unread[:40]!r} ({row.where})")
        return score

    def _truth(self, row: Row, ours: str) -> bool:
        value = self._cell(row, ours)
        if value is None or str(value).lower() in ("false", "0", "0.0"):
            return False
        if str(value).lower() in ("true", "1", "1.0"):
            return True
        raise PersonaProbeError(f"{row.where}: {self.chosen[ours]!r} is {str(value)[:40]!r}; it must be true or false")

    def _whole(self, row: Row, ours: str) -> int | None:
        value = self._cell(row, ours)
        try:
            whole = None if value is None else int(float(value))
        except (TypeError, ValueError, OverflowError):
            whole = None
        if value is not None and (whole is None or whole != float(value)):
            raise PersonaProbeError(f"{row.where}: {self.chosen[ours]!r} is {value!r}; it must be a whole number")
        return whole


def _with_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """A CSV's further columns as numbers where all of their cells are."""
    further = [name for name in table if name not in (*IDENTITY, *VERDICT, "messages", "model")]
    numbers = {str(name): pd.to_numeric(table[name], errors="coerce") for name in further}
    return table.assign(**{name: column for name, column in numbers.items() if column.notna().all()})


def _warn(table: pd.DataFrame, file: str) -> None:
    """Say what makes the numbers mean less than they seem to."""
    rendered = int(table["prompt"].str.contains(_RENDERED, na=False).sum())
    if rendered:
        warnings.warn(
            f"{file}: {rendered} questions hold the marks of a chat template; they were rendered before they were "
            "written, and a model that is asked them again reads those marks as text: give the plain questions",
            PersonaProbeWarning,
            stacklevel=3,
        )
    best = table["coherent"].max()
    if best <= 10:
        warnings.warn(
            f"{file}: no answer is more coherent than {best:g}; if the scores go to 1 or 10, multiply them first: they "
            "are taken as 0-100",
            PersonaProbeWarning,
            stacklevel=3,
        )
