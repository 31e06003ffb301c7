"""Rows of answer files: flat rows of any kind of file, and the nested records of vLLM and the OpenAI batch API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from persona_probe.dialogue.dialogue import FURTHER
from persona_probe.dialogue.row_files import Row, existing, json_lines, read_rows
from persona_probe.dialogue.row_turns import ANSWER, is_given
from persona_probe.errors import PersonaProbeError

_ASKED = {name: name for name in ("messages", "prompt", "input", "system", "tools", "functions")} | {
    "instructions": "system"
}
"""What is read of a request, and what we call it; the rest are settings."""
_OF_A_CHOICE = ("message", "text", "finish_reason")


def read_answer_rows(path: str | Path, requests: str | Path | None, unread: set[str]) -> list[Row]:
    """One flat row for every answer in a file.

    Args:
        path: a file or folder that `persona_probe.dialogue.row_files.read_rows` reads.
        requests: the input file of the batch, in which an answer's question has the same ``custom_id``.
        unread: gets the names of the fields of requests and responses that are in no row.

    Raises:
        PersonaProbeError: if the file is missing, empty, of another kind or broken; the row is named.
    """
    questions = {} if requests is None else _requests(existing(requests))
    return [
        replace(row, cells=cells)
        for row in read_rows(path)
        for cells in unfolded(row.cells, row.where, questions, unread)
    ]


def unfolded(
    record: Mapping[str, Any], where: str, questions: Mapping[str, Any], unread: set[str]
) -> list[dict[str, Any]]:
    """One flat row for each answer that a served request holds.

    These forms are known: a chat or completion response (``choices``), one of the Responses API (``output``), a line of
    a batch's output (``response.body``, or ``response`` in vLLM), Inspect's samples (``output.choices``), and vLLM's
    ``RequestOutput`` (``outputs``). A request that failed gives one row without an answer. Any other record is a flat
    row already.
    """
    cells = dict(record)
    response = cells.get("response")
    batched = "custom_id" in cells and "response" in cells
    if not batched and isinstance(response, Mapping) and not {"body", "choices", "outputs", "output"} & {*response}:
        response = None  # a message: the answer itself
    body = response.get("body", response) if isinstance(response, Mapping) else cells
    if isinstance(response, Mapping) or batched:
        del cells["response"]
    logged = cells.get("output")
    if not isinstance(response, Mapping) and isinstance(logged, Mapping) and isinstance(logged.get("choices"), list):
        body = cells.pop("output")  # as in Inspect's logs, which have messages too
    sent = cells.pop("body") if isinstance(cells.get("body"), Mapping) else None
    if questions and "custom_id" in cells and str(cells["custom_id"]) not in questions:
        raise PersonaProbeError(
            f"{where}: its custom_id {cells['custom_id']!r} is in no request of the file that was given (requests=)"
        )
    for asked in (sent, questions.get(str(cells.get("custom_id")))):
        if isinstance(asked, Mapping):
            cells |= {_ASKED[field]: value for field, value in asked.items() if field in _ASKED}
            unread.update(field for field in asked if field not in (*_ASKED, "model") and asked[field] is not None)
    if isinstance(cells.get("prompt"), list):
        if is_given(cells.get("messages")) and cells["messages"] != cells["prompt"]:
            raise PersonaProbeError(f"{where}: 'prompt' and 'messages' are lists that differ; remove one")
        cells["messages"] = cells.pop("prompt")
    body = body if isinstance(body, Mapping) else {}
    items = body.get("output")
    of_items = isinstance(items, list) and all(isinstance(one, Mapping) and "type" in one for one in items)
    several = [_of_items(items or [], unread)] if of_items else body.get("choices", body.get("outputs"))
    # Where there is an answer too, a list is what a question offers to choose from.
    offered = body is cells and any(is_given(cells.get(name)) for name in ANSWER if name != "output")
    if not isinstance(several, list) or offered:
        return [{**cells, "answer": None, "id": str(cells["custom_id"])}] if batched else [cells]
    if body is not cells:
        unread.update(field for field in body if field not in ("choices", "outputs", "output", "model"))
    spent = ("choices", "outputs", *(["output"] if of_items else []))
    cells = {field: value for field, value in cells.items() if field not in spent}
    if isinstance(body.get("model"), str):
        cells.setdefault("model", body["model"])
    name = cells.get("custom_id", cells.get("request_id", cells.get("id")))
    answers = [_answer_of(choice, f"{where}, answer {n}", unread) for n, choice in enumerate(several)]
    answers = answers or [{"answer": None}]
    if name is None:
        return [{**cells, **answer} for answer in answers]
    parts = [f"/{number}" for number in range(len(answers))] if len(answers) > 1 else [""]
    return [{**cells, **answer, "id": f"{name}{part}"} for answer, part in zip(answers, parts, strict=True)]


def _of_items(items: Sequence[Any], unread: set[str]) -> dict[str, Any]:
    """The items of a response of OpenAI's Responses API as one choice: its texts, in order, and its tool calls."""
    texts: list[str] = []
    calls = []
    for item in items:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "message":
            parts = [part for part in item.get("content") or [] if isinstance(part, Mapping)]
            texts += [str(part.get("text", part.get("refusal"))) for part in parts]
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            calls.append({"type": "function", "id": item.get("call_id"), "function": function})
        else:
            unread.add(f"output of type {kind}")
    return {"message": {"content": "".join(texts) if texts else None} | ({"tool_calls": calls} if calls else {})}


def _answer_of(choice: Any, where: str, unread: set[str]) -> dict[str, Any]:
    """The columns of one choice; a refusal by the server counts as the answer's text, like the model's own words."""
    if isinstance(choice, str):
        return {"answer": choice}
    if not isinstance(choice, Mapping):
        raise PersonaProbeError(f"{where}: is {type(choice).__name__}; expected text, or an object with text")
    unread.update(field for field, value in choice.items() if field not in _OF_A_CHOICE and value is not None)
    message, answer = choice.get("message"), choice.get("text")
    if isinstance(message, Mapping):
        fields = {name: message.get(name) for name in ("role", "content", *FURTHER)}
        if fields["content"] is None and message.get("refusal") is not None:
            fields["content"] = message["refusal"]
        elif message.get("function_call") is not None:
            fields["function_call"] = message["function_call"]
        known = (*fields, "function_call", "refusal")
        unread.update(name for name in message if name not in known and is_given(message[name]))
        said = {name: value for name, value in fields.items() if value is not None and name != "role"}
        # A thought that was cut off has no text after it.
        answer = {"role": "assistant", "content": ""} | said if said else None
    elif answer is not None and not isinstance(answer, str):
        raise PersonaProbeError(f"{where}: its text is {answer!r}; it must be text")
    reason = choice.get("finish_reason")
    return {"answer": answer} | ({} if reason is None else {"finish_reason": reason})


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
