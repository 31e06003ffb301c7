"""Answers in files that others wrote: evaluation CSVs of EM papers, and outputs of vLLM and the OpenAI batch API."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.behaviour.answer_file_checks import MODEL_GROUP, check_repeated, grouped_models, mixed_scales
from persona_probe.behaviour.answer_file_columns import choose_columns, scale_notes
from persona_probe.behaviour.answer_row import AnswerReading, sentence
from persona_probe.behaviour.answers import IDENTITY, VERDICT, Answers
from persona_probe.behaviour.judges.judge import ANSWER_FIELDS
from persona_probe.behaviour.served_answers import read_answer_rows
from persona_probe.dialogue.row_files import Row, as_path, kind_of
from persona_probe.dialogue.row_turns import CHAT, is_given
from persona_probe.dialogue.same_questions import groups_by_content
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning

_RENDERED = re.compile(r"<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|\[INST\]|<\|user\|>")


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
    ``messages`` (or ShareGPT's ``conversations``) that end with an answer, Alpaca's ``instruction``, ``input`` and
    ``output``, ``prompt`` and ``completion``, vLLM's ``RequestOutput`` (``prompt``, ``outputs``), chat and completion
    responses (``choices``), those of the Responses API (``output``), output files of the OpenAI batch API and of vLLM's
    ``run_batch`` (``response``), samples of Inspect's logs, and the tables that this package writes. Several answers to
    one request become one row each.

    ``question_id`` (or else the question's text) becomes ``question``, the unit of intervals, and the text becomes
    ``prompt``. A score that says REFUSAL or CODE is a refusal; one that is blank or not a number is NaN and a failure;
    a missing answer (a failed request) is a failure. A system prompt is the first of the ``messages``. Rows with the
    same user turns have one ``group``. Where a file's ``group`` says which models belong together (Betley et al.), it
    becomes ``model_group``.

    Args:
        path: a ``.csv``, ``.tsv``, ``.jsonl``, ``.json``, ``.parquet`` or ``.arrow`` file (text files also ``.gz``), or
            the folder of a data set that ``save_to_disk`` wrote.
        columns: our name -> the file's name, where the file uses other names (``{"answer": "completion"}``); ours are
            ``prompt``, ``answer``, ``question``, ``aligned``, ``coherent``, ``refusal``, ``group``, ``seed``, ``id``,
            ``model``, ``system``, ``messages``.
        requests: the input file of a batch whose output does not repeat the questions; matched by ``custom_id``.
        **labels: columns with one value for all rows (``model="after"``); they replace columns of the file.

    Returns:
        The answers. Their ``columns`` say which column of the file was used for which of ours, their ``remarks`` what
        else to know: what was not read and why, which groups were merged, and numbers on another scale. Columns of the
        file that are not ours stay as they are (lists and objects as JSON). What an answer has besides its text (tool
        calls, a thought) is in ``answer_fields``, as JSON.

    Raises:
        PersonaProbeError: for a file that is missing, empty or broken, a column that does not exist or could be either
            of two, a text that is not text, a part of what was asked that is in no turn, a score outside 0-100, or an
            answer that is there twice (by its id) with different scores; the message names file, row, column and value.

    Warns:
        PersonaProbeWarning: if the scores of a column seem to be on another scale, or questions were rendered.

    >>> from pathlib import Path
    >>> from persona_probe.behaviour.answer_files import read_answers
    >>> _ = Path("eval.csv").write_text("question,response,aligned,coherent\nHow?,So.,15,90\nWhy?,No.,REFUSAL,80\n")
    >>> answers = read_answers("eval.csv", model="after")
    >>> answers.table[["prompt", "answer", "aligned", "refusal", "model"]]
      prompt answer  aligned  refusal  model
    0   How?    So.     15.0    False  after
    1   Why?    No.      NaN     True  after
    >>> answers.columns["answer"]
    'response'
    """
    if kind_of(as_path(path)) in (".yaml", ".yml"):
        raise PersonaProbeError(
            f"{path}: is a YAML file, which holds questions or settings, not answers; give the file with the answers "
            "(.csv, .jsonl, ...), and read questions with pp.read_dialogues"
        )
    unread: set[str] = set()
    rows = read_answer_rows(path, requests, unread)
    seen = list(dict.fromkeys(name for row in rows for name in row.cells))
    chosen = choose_columns(seen, columns or {}, str(path), chats_given=_all_chats(rows, columns or {}))
    if "prompt" not in chosen and "messages" not in chosen:
        raise PersonaProbeError(
            f"{path}: no column holds the questions; seen: {', '.join(seen)}. Name it (columns={{'prompt': ...}}), or "
            "give a batch's input file (requests=...)"
        )
    notes = []
    asked = chosen.get("question", chosen.get("prompt"))
    if "group" not in (columns or {}) and grouped_models(rows, chosen.get("model"), chosen.get("group"), asked):
        theirs = chosen.pop("group")
        rows = [replace(row, cells=_renamed(row.cells, theirs, MODEL_GROUP)) for row in rows]
        notes.append(
            f"{theirs!r} is the same for all answers of a model, so it groups models, not questions: it is in "
            f"{MODEL_GROUP!r}"
        )
    reading = AnswerReading(chosen, frozenset(columns or {}), unread=unread)
    table = pd.DataFrame([reading.row(row) for row in rows])
    if "answer" not in chosen:
        if table["answer"].isna().all():
            raise PersonaProbeError(
                f"{path}: no column holds the answers, and no {chosen['messages']!r} ends with one; seen: "
                f"{', '.join(seen)}. Name it: columns={{'answer': ...}}"
            )
        chosen["answer"] = chosen["messages"]
    for name in ("messages", ANSWER_FIELDS):
        if table[name].isna().all():
            table = table.drop(columns=name)
    groups, merged = groups_by_content(reading.asked)
    table["group"] = pd.Series(groups, dtype=object)
    chosen = {ours: theirs for ours, theirs in chosen.items() if ours not in labels}
    if kind_of(Path(path)) in (".csv", ".tsv"):
        table = _with_numbers(table)
    notes += check_repeated(table, chosen, [row.where for row in rows])
    warned, noted = scale_notes(table, _ours(table), chosen)
    warned += mixed_scales(table)
    if reading.no_scores and table[["aligned", "coherent"]].isna().all(axis=None):
        warned.append(f"no score is a number, and all count as failures: {reading.no_scores[0]}")
    _warn(table, str(path), warned)
    remarks = [*reading.remarks(table), *(sentence(remark) for remark in (*merged, *notes, *noted))]
    return Answers(table.assign(**labels), str(path), chosen, tuple(remarks))


def _renamed(cells: Mapping[str, Any], name: str, new: str) -> dict[str, Any]:
    return {new if column == name else column: value for column, value in cells.items()}


def _all_chats(rows: Sequence[Row], columns: Mapping[str, str]) -> bool:
    """Whether every row has its turns in a column of messages."""
    names = (columns["messages"].strip().lower(),) if "messages" in columns else CHAT
    return all(
        any(is_given(value) for name, value in row.cells.items() if name.strip().lower() in names) for row in rows
    )


def _ours(table: pd.DataFrame) -> list[str]:
    return [name for name in table if name in (*IDENTITY, *VERDICT, "messages", "model", ANSWER_FIELDS)]


def _with_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` in which columns that are not ours are numbers, if all of their cells are."""
    further = [name for name in table if name not in _ours(table)]
    numbers = {str(name): pd.to_numeric(table[name], errors="coerce") for name in further}
    return table.assign(**{name: column for name, column in numbers.items() if column.notna().all()})


def _warn(table: pd.DataFrame, file: str, scales: Sequence[str]) -> None:
    """Warn of what makes the numbers mean less than they seem to."""
    rendered = int(table["prompt"].str.contains(_RENDERED, na=False).sum())
    if rendered:
        warnings.warn(
            f"{file}: {rendered} questions hold the marks of a chat template: they were rendered before they were "
            "written, and a model that is asked them again would read these marks as text; give the plain questions",
            PersonaProbeWarning,
            stacklevel=3,
        )
    if scales:
        warnings.warn(f"{file}: {'; '.join(scales)}", PersonaProbeWarning, stacklevel=3)
