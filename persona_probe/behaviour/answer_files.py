"""Answers in files that others wrote: evaluation CSVs of EM papers, and outputs of vLLM and the OpenAI batch API."""

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
_RECOMPUTED = {"failed"}


def read_answers(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    requests: str | Path | None = None,
    **labels: Any,
) -> Answers:
    r"""The answers, judged or not, in a file that somebody else wrote.

    These forms are known by their column names: evaluation CSVs and JSON lines as in Betley et al. 2025 (``question``,
    ``answer``, ``question_id``, ``aligned``, ``coherent``) and Turner et al. 2025 (``question``, ``response``, ...),
    ``messages`` that end with an answer, vLLM's ``RequestOutput`` (``prompt``, ``outputs``), chat and completion
    responses (``choices``), output files of the OpenAI batch API and of vLLM's ``run_batch`` (``response``), and the
    tables that this package writes. Several answers to one request become one row each.

    ``question_id`` (or else the question's text) becomes ``question``, the unit of intervals, and the text becomes
    ``prompt``. A score that says REFUSAL or CODE is a refusal; one that is blank or not a number is NaN and a failure;
    a missing answer (a failed request) is a failure.

    Args:
        path: a ``.csv``, ``.tsv``, ``.jsonl``, ``.json`` or ``.parquet`` file.
        columns: our name -> the file's name, where the file uses other names (``{"answer": "completion"}``); ours are
            ``prompt``, ``answer``, ``question``, ``aligned``, ``coherent``, ``refusal``, ``group``, ``seed``, ``id``,
            ``model``, ``system``, ``messages``.
        requests: the input file of a batch whose output does not repeat the questions; matched by ``custom_id``.
        **labels: columns with one value for all rows (``model="after"``); they replace columns of the file.

    Returns:
        The answers. Their ``columns`` say which column of the file was used for which of ours, their ``remarks`` what
        else to know. Columns of the file that are not ours stay as they are.

    Raises:
        PersonaProbeError: for a file that is missing, empty or broken, a column that does not exist or could be either
            of two, a text that is not text, or a score outside 0-100; the message names file, row, column and value.

    >>> from pathlib import Path
    >>> from persona_probe.behaviour.answer_files import read_answers
    >>> _ = Path("eval.csv").write_text("question,response,aligned,coherent\nHow?,So.,5,90\nWhy?,No.,REFUSAL,80\n")
    >>> answers = read_answers("eval.csv", model="after")
    >>> answers.table[["prompt", "answer", "aligned", "refusal", "model"]]
      prompt answer  aligned  refusal  model
    0   How?    So.      5.0    False  after
    1   Why?    No.      NaN     True  after
    >>> answers.columns["answer"]
    'response'
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
    """Turns rows of a file into rows of our table, and counts what was unusual."""

    chosen: Mapping[str, str]
    unread: list[str] = field(default_factory=list)
    unanswered: int = 0

    def row(self, row: Row) -> dict[str, Any]:
        turns = self._turns(row)
        if not turns:
            raise PersonaProbeError(
                f"{row.where}: holds no question; seen: {', '.join(row.cells)}. The output of a batch does not repeat "
                "the questions: give its input file (requests=...)"
            )
        prompt = turns[-1]["content"]
        answer = self._text(row, "answer")
        if answer is not None and not answer.strip():
            answer = None  # the model said nothing, or the cell is blank: the scores cannot be of this answer
        self.unanswered += answer is None
        name = self._cell(row, "id")
        scores = {column: self._score(row, column) for column in ("aligned", "coherent")}
        refusal = any(score.refusal for score in scores.values()) or self._truth(row, "refusal")
        values = {column: score.value if answer is not None else np.nan for column, score in scores.items()}
        failed = (np.isnan(values["aligned"]) or np.isnan(values["coherent"])) and not refusal
        others = {
            key: value
            for key, value in row.cells.items()
            if key not in self.chosen.values() and key not in _RECOMPUTED and isinstance(value, str | int | float)
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
        others = {key: value for key, value in others.items() if key not in {*ours, *more}}
        return {**ours, **more, "messages": before, **others}

    def remarks(self, rows: int) -> list[str]:
        """What the reader should know, in sentences."""
        sentences = []
        if self.unanswered:
            sentences.append(f"{self.unanswered} of {rows} rows hold no answer and count as failures")
        if self.unread:
            more = f", and {len(self.unread) - 1} more" if len(self.unread) > 1 else ""
            sentences.append(f"Scores that are not numbers count as failures: {self.unread[0]}{more}")
        return sentences

    def _cell(self, row: Row, ours: str) -> Any:
        value = row.cells.get(self.chosen[ours]) if ours in self.chosen else None
        blank = value is None or (isinstance(value, float) and np.isnan(value))
        # An empty cell of a CSV means "none", but an answer or a prompt may really be empty.
        return None if blank or (value == "" and ours not in ("answer", "prompt")) else value

    def _text(self, row: Row, ours: str) -> str | None:
        value = self._cell(row, ours)
        if value is not None and not isinstance(value, str):
            raise PersonaProbeError(f"{row.where}: {self.chosen[ours]!r} is {value!r}; it must be text")
        return value

    def _turns(self, row: Row) -> list[dict[str, str]]:
        """All turns before the answer."""
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
    """``table`` in which columns that are not ours are numbers, if all of their cells are."""
    further = [name for name in table if name not in (*IDENTITY, *VERDICT, "messages", "model")]
    numbers = {str(name): pd.to_numeric(table[name], errors="coerce") for name in further}
    return table.assign(**{name: column for name, column in numbers.items() if column.notna().all()})


def _warn(table: pd.DataFrame, file: str) -> None:
    """Warn of what makes the numbers mean less than they seem to."""
    rendered = int(table["prompt"].str.contains(_RENDERED, na=False).sum())
    if rendered:
        warnings.warn(
            f"{file}: {rendered} questions hold the marks of a chat template: they were rendered before they were "
            "written, and a model that is asked them again would read these marks as text; give the plain questions",
            PersonaProbeWarning,
            stacklevel=3,
        )
    best = table["coherent"].max()
    if best <= 10:
        warnings.warn(
            f"{file}: no answer is more coherent than {best:g}; scores are read as 0-100, so if the highest score is 1 "
            "or 10, multiply them first",
            PersonaProbeWarning,
            stacklevel=3,
        )
