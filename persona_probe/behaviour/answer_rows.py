"""Rows of answer files: CSV, Parquet and JSON lines, and the nested records of vLLM and the OpenAI batch API."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from persona_probe.dialogue.reading import existing, json_lines, read_text
from persona_probe.errors import PersonaProbeError

KINDS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class Row:
    """A flat row of a file, and its place there."""

    where: str
    cells: Mapping[str, Any]


def read_rows(path: str | Path, requests: str | Path | None = None) -> list[Row]:
    """Every answer in a file.

    Args:
        path: a file of one of `KINDS`.
        requests: the input file of the batch, in which an answer's question has the same ``custom_id``.

    Raises:
        PersonaProbeError: if the file is missing, empty, of another kind or broken; the row is named.
    """
    file = existing(path)
    kind = file.suffix.lower()
    if kind in (".csv", ".tsv"):
        rows = _from_csv(file, "," if kind == ".csv" else "\t")
    elif kind == ".parquet":
        records = pd.read_parquet(file).to_dict("records")
        rows = [Row(f"{file}, row {n}", _named(record)) for n, record in enumerate(records, start=1)]
    elif kind in (".jsonl", ".json"):
        questions = {} if requests is None else _requests(existing(requests))
        rows = [Row(where, cells) for where, record in _json_rows(file) for cells in unfolded(record, where, questions)]
    else:
        raise PersonaProbeError(f"{path}: answers are read from {', '.join(KINDS)} files, not {file.suffix or 'this'}")
    if not rows:
        raise PersonaProbeError(f"{path}: is empty; it needs at least one answer")
    return rows


def unfolded(record: Mapping[str, Any], where: str, questions: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """One flat row for each answer that a served request holds.

    These forms are known: a chat or completion response (``choices``), a line of a batch's output (``response.body``,
    or ``response`` in vLLM), vLLM's ``RequestOutput`` (``outputs``), and ``messages`` that end with the answer. A
    request that failed gives one row without an answer. Any other record is a flat row already.
    """
    cells = dict(record)
    response = cells.get("response")
    body = response.get("body", response) if isinstance(response, Mapping) else cells
    batched = "custom_id" in cells and "response" in cells
    if isinstance(response, Mapping) or batched:
        del cells["response"]
    sent = cells.pop("body", None)
    for asked in (sent, (questions or {}).get(str(cells.get("custom_id")))):
        if isinstance(asked, Mapping):
            cells |= {field: asked[field] for field in ("messages", "prompt") if field in asked}
    if isinstance(cells.get("prompt"), list):
        cells["messages"] = cells.pop("prompt")
    body = body if isinstance(body, Mapping) else {}
    several = body.get("choices", body.get("outputs"))
    if not isinstance(several, list):
        if batched:
            return [{**cells, "answer": None}]
        return [_with_last_turn(cells)]
    cells = {field: value for field, value in cells.items() if field not in ("choices", "outputs")}
    if isinstance(body.get("model"), str):
        cells.setdefault("model", body["model"])
    name = cells.get("custom_id", cells.get("request_id", cells.get("id")))
    answers = [_text_of(choice, f"{where}, answer {n}") for n, choice in enumerate(several)] or [None]
    if name is None:
        return [{**cells, "answer": text} for text in answers]
    parts = [f"/{number}" for number in range(len(answers))] if len(answers) > 1 else [""]
    return [{**cells, "answer": text, "id": f"{name}{part}"} for text, part in zip(answers, parts, strict=True)]


def _text_of(choice: Any, where: str) -> str | None:
    """The text of one choice; a refusal by the server counts as the answer's text, like the model's own words."""
    if isinstance(choice, str):
        return choice
    if not isinstance(choice, Mapping):
        raise PersonaProbeError(f"{where}: is {type(choice).__name__}; expected text, or an object with text")
    message = choice.get("message")
    text = choice.get("text")
    if isinstance(message, Mapping):
        text = message.get("content") if message.get("content") is not None else message.get("refusal")
    if text is not None and not isinstance(text, str):
        raise PersonaProbeError(f"{where}: its text is {text!r}; it must be text")
    return text


def _with_last_turn(cells: dict[str, Any]) -> dict[str, Any]:
    """``cells`` with the answer moved out of ``messages``, if it is there."""
    turns = cells.get("messages")
    last = turns[-1] if isinstance(turns, list) and turns else None
    if isinstance(last, Mapping) and last.get("role") == "assistant" and "answer" not in cells:
        return {**cells, "messages": turns[:-1] if isinstance(turns, list) else turns, "answer": last.get("content")}
    return cells


def _requests(file: Path) -> dict[str, Any]:
    requests: dict[str, Any] = {}
    for where, record in json_lines(file):
        if not isinstance(record, Mapping) or "custom_id" not in record or not isinstance(record.get("body"), Mapping):
            raise PersonaProbeError(f"{where}: is not a batch request; expected an object with 'custom_id' and 'body'")
        name = str(record["custom_id"])
        if name in requests:
            raise PersonaProbeError(f"{where}: has the custom_id {name!r} of another request; each must be different")
        requests[name] = record["body"]
    return requests


def _json_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = read_text(file).lstrip()
    if file.suffix.lower() == ".json" and text.startswith("["):
        try:
            records = json.loads(text)
        except json.JSONDecodeError as error:
            raise PersonaProbeError(f"{file}: is not JSON ({error.msg} at line {error.lineno})") from error
        rows = [(f"{file}, row {number}", record) for number, record in enumerate(records, start=1)]
    else:
        rows = list(json_lines(file))
    for where, record in rows:
        if not isinstance(record, dict):
            raise PersonaProbeError(f"{where}: is {type(record).__name__}; a row must be an object with its fields")
        yield where, record


def _from_csv(file: Path, separator: str) -> list[Row]:
    read_text(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # As text, and nothing is read as "missing": an answer may be "NA", and scores have their own rule.
            table = pd.read_csv(
                file, sep=separator, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
            )
    except pd.errors.EmptyDataError:
        return []
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise PersonaProbeError(
            f"{file}: a row has other fields than the header ({str(error).strip()}); quote texts that contain "
            f"{'commas' if separator == ',' else 'tabs'}, quotes or line breaks"
        ) from error
    return [Row(f"{file}, row {n}", _named(record)) for n, record in enumerate(table.to_dict("records"), start=1)]


def _named(record: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in record.items()}
