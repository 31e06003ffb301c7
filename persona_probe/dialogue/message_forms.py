"""Messages as files write them (OpenAI's, Hugging Face's and ShareGPT's forms) as messages with our roles."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from typing import Any

from persona_probe.dialogue.dialogue import ROLES, TEXT
from persona_probe.dialogue.row_files import json_value
from persona_probe.errors import PersonaProbeError

SYNONYMS = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "developer": "system",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
}
"""Other names of our roles. ``developer`` is OpenAI's newer name of the system prompt."""
_CALLS = ("function_call", "tool_call")
"""Who speaks in a ShareGPT turn that is a tool call: its value is the call."""
_PLAIN = ("human", "gpt", "observation")
"""ShareGPT's own names, which need no word."""
_ABOUT = frozenset(
    [
        *("id", "message_id", "parent_id", "index", "turn", "turn_id", "turn_identifier"),
        *("source", "model", "metadata", "timestamp", "created", "created_at", "finish_reason"),
        *("language", "lang", "country", "state", "hashed_ip", "header", "redacted", "toxic"),
    ]
)
"""What data sets and logs (WildChat, OASST, Inspect, servers) note of a message and a model does not read."""
_BETWEEN_OBJECTS = re.compile(r"\}\s*\n\s*\{")
"""Where NumPy, whose way of writing lists ends up in CSV files of Hugging Face's data sets, leaves out the comma."""
_LIST_OF_TURNS = re.compile(r"""\s*\[\s*\{\s*["'](role|from|content|value)["']\s*:""")
_NAMED = {"role": ("role", "from"), "content": ("content", "value")}


def turns_of(given: Any, where: str, column: str, notes: set[str]) -> list[dict[str, Any]]:
    """The messages in a column: a list of them, one alone, or either as JSON.

    Args:
        given: the cell.
        where: file and row, for errors.
        column: the name of the column.
        notes: gets a sentence about each role that is read as another.

    Raises:
        PersonaProbeError: if it is not a list of messages, or a message gives a field under two names.
    """
    if isinstance(given, str):
        given = _from_text(given, where, column)
    if isinstance(given, Mapping):
        given = _one_by_one(given)
    if not isinstance(given, list):
        raise PersonaProbeError(f"{where}: {column!r} is {given!r}; it must be a list of messages (role/content pairs)")
    return [_turn(turn, f"{where}: {column!r}, message {n}", notes) for n, turn in enumerate(given)]


def is_turns(value: Any) -> bool:
    """Whether ``value`` is a list of messages, or a text that holds one."""
    if isinstance(value, str):
        return _LIST_OF_TURNS.match(value) is not None
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _one_by_one(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One message, or an object of lists (as Hugging Face stores a ``Sequence`` of objects), as a list of messages."""
    lists = [value for value in given.values() if isinstance(value, list)]
    if len(lists) < len(given) or len({len(value) for value in lists}) != 1 or not {"role", "from"} & {*given}:
        return [dict(given)]
    return [dict(zip(given, values, strict=True)) for values in zip(*lists, strict=True)]


def _from_text(text: str, where: str, column: str) -> Any:
    """What a text holds as JSON, or as Python writes it (pandas writes lists into CSV files so)."""
    if not text.lstrip().startswith(("[", "{")):
        raise PersonaProbeError(
            f"{where}: {column!r} is {text[:60]!r}; it must be a list of messages (role/content pairs)"
        )
    try:
        return json_value(text, f"{where}: {column!r}")
    except PersonaProbeError as error:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # of a text with a lone backslash
                return ast.literal_eval(_BETWEEN_OBJECTS.sub("}, {", text))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise error from None


def _turn(given: Any, where: str, notes: set[str]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise PersonaProbeError(f"{where}: is {type(given).__name__} ({str(given)[:40]!r}); expected role and content")
    turn = {str(name): value for name, value in given.items() if value is not None}
    about = sorted(_ABOUT & {*turn})
    if about:
        turn = {name: value for name, value in turn.items() if name not in about}
        notes.add(f"not read, since they are not part of a message's text: its fields {', '.join(map(repr, about))}")
    for ours, names in _NAMED.items():
        found = {name: turn.pop(name) for name in names if name in turn}
        if len(found) > 1 and len(set(map(str, found.values()))) > 1:
            raise PersonaProbeError(f"{where}: has {' and '.join(map(repr, found))}; leave one out")
        if found:
            turn[ours] = next(iter(found.values()))
    role = turn.get("role")
    if isinstance(role, str) and role not in (*ROLES, TEXT):
        turn["role"] = _role(role, where, notes)
        if turn["role"] in _CALLS:
            return {**turn, "role": "assistant", "content": "", "tool_calls": _calls(turn.get("content"), where)}
    if "function_call" in turn and "tool_calls" not in turn:  # OpenAI's older form
        turn["tool_calls"] = _calls(turn.pop("function_call"), where)
    return turn


def _role(given: str, where: str, notes: set[str]) -> str:
    name = given.strip().lower()
    if name in (*ROLES, *_CALLS):
        return name
    if name not in SYNONYMS:
        raise PersonaProbeError(f"{where}: role is {given!r}; use one of {', '.join(ROLES)} (or {', '.join(SYNONYMS)})")
    if name not in _PLAIN:
        notes.add(f"the role {given!r} is read as {SYNONYMS[name]!r}")
    return SYNONYMS[name]


def _calls(given: Any, where: str) -> list[dict[str, Any]]:
    """The tool calls in a ShareGPT turn, or in OpenAI's older field."""
    value = json_value(given, f"{where}: the tool call") if isinstance(given, str) else given
    calls = value if isinstance(value, list) else [value]
    for call in calls:
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            raise PersonaProbeError(f"{where}: the tool call is {str(given)[:60]!r}; expected a name and arguments")
    return [{"type": "function", "function": dict(call)} for call in calls]
