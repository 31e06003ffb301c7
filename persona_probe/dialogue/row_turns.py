"""The turns in a row, whichever of the common formats its columns are in, and which columns they are in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from persona_probe.dialogue.dialogue import ROLES, TEXT
from persona_probe.dialogue.message_forms import SYNONYMS, is_turns, turns_of
from persona_probe.dialogue.row_files import SYSTEM
from persona_probe.dialogue.same_questions import content_key
from persona_probe.errors import PersonaProbeError

CHAT = ("messages", "conversations", "conversation")
QUESTION = ("prompt", "instruction", "query", "question", "input")
"""Columns that hold what the user asks, the most likely first."""
ANSWER = ("answer", "response", "completion", "output", "generation", "model_answer", "model_response")
FURTHER_INPUT = ("input", "context")
"""What is asked about, in Alpaca's and Dolly's formats: it follows the instruction."""
THOUGHT = ("reasoning_content", "thinking")
_LEARNED = ("weight", "train")
_PREFERENCES = ("chosen", "rejected")
_REFUSED = {
    **dict.fromkeys(
        ("tools", "functions"),
        "which would not be given to the model: describe them in the system prompt, or remove the column",
    ),
    **dict.fromkeys(
        ("image", "images", "audio", "audios", "video", "videos"), "and only text can be read: remove the column"
    ),
    **dict.fromkeys(
        ("choices", "options"),
        "which would not be given to the model: write them into the question, read multiple-choice questions with "
        "pp.behaviour.read_choices and servers' responses with pp.read_answers, or remove the column",
    ),
    "instructions": "which may be what the model is told: rename it to 'system', or to another name if it is a label",
    "outputs": "as vLLM's outputs have: read them with pp.read_answers, or remove the column",
}
"""Columns that cannot be labels, since they are part of what is asked or answered, with what to do."""
NOT_LABELS = tuple(name for name in _REFUSED if name != "outputs")
"""Columns with a part of what was asked that a dialogue cannot contain."""
_PASSAGES = ("context", "passage", "document", "documents", "article")
PARTS = ("input", *_PASSAGES)
"""Columns that may hold a part of the question."""
KNOWN = frozenset(
    {*CHAT, *QUESTION, *ANSWER, *SYSTEM, *FURTHER_INPUT, *THOUGHT, *_LEARNED, *_PREFERENCES, *_REFUSED, *_PASSAGES}
    | {"text", "history"}
)


@dataclass
class RowTurns:
    """The turns in a row.

    Attributes:
        before: the messages before the answer, or all of them if the row has no answer of its own.
        answer: the messages in the columns of the answer.
        used: the columns that were read.
        text: a plain text, which is not a dialogue.
    """

    before: list[dict[str, Any]] = field(default_factory=list)
    answer: list[dict[str, Any]] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    text: str | None = None


def is_given(value: Any) -> bool:
    """Whether a cell holds anything."""
    return value is not None and value != "" and value != [] and value != {}


def row_turns(cells: Mapping[str, Any], where: str, notes: set[str]) -> RowTurns:
    """The turns in a row, and the columns that hold them.

    Args:
        cells: the row, by names as in `KNOWN`.
        where: file and row, for errors.
        notes: gets a sentence about what is read as something else.

    Raises:
        PersonaProbeError: if the row has no turns, they are in several columns that differ, or a column holds a part of
            what is asked that has no place in them; the column is named.
    """
    given = {name: value for name, value in cells.items() if is_given(value)}
    _refuse(given, where)
    empty = next((name for name in CHAT if cells.get(name) == []), None)
    if empty is not None and not {*CHAT, *QUESTION, "text"} & {*given}:
        raise PersonaProbeError(f"{where}: {empty!r} is empty; a dialogue needs at least one message")
    turns = question_turns(given, where, notes)
    if turns.text is None:
        _add_answer(turns, given, where, notes)
        _add_thought(turns, given, where)
    elif clash := next((name for name in (*ANSWER, *SYSTEM, *THOUGHT, "history") if name in given), None):
        raise PersonaProbeError(
            f"{where}: has {clash!r} and a plain 'text'; a plain text has no turns: rename 'text' to 'prompt', or "
            f"remove {clash!r}"
        )
    _check_learned(turns, given, where)
    return turns


def question_turns(given: Mapping[str, Any], where: str, notes: set[str]) -> RowTurns:
    """The turns before the answer, with system prompt and history, of a row without empty cells.

    Raises:
        PersonaProbeError: as `row_turns`.
    """
    chats = [name for name in CHAT if name in given]
    questions = [name for name in QUESTION if name in given]
    turns = RowTurns()
    if chats:
        turns.before = turns_of(given[chats[0]], where, chats[0], notes)
        turns.used.add(chats[0])
        for other in chats[1:]:
            if turns_of(given[other], where, other, notes) != turns.before:
                raise PersonaProbeError(f"{where}: has {chats[0]!r} and {other!r}, which differ; remove one")
            turns.used.add(other)
    elif questions:
        _ask(turns, given, questions, where, notes)
    elif isinstance(given.get("text"), str):
        if str(given.get("role")).strip().lower() in (*ROLES, *SYNONYMS):
            raise PersonaProbeError(
                f"{where}: has 'text' and 'role' ({given['role']!r}), as one message of a dialogue has; write all "
                "messages of a dialogue into one row (messages), or remove 'role' if this is a plain text"
            )
        turns.used.add("text")
        turns.text = given["text"]
        return turns
    elif "text" in given:
        raise PersonaProbeError(f"{where}: 'text' is {str(given['text'])[:60]!r}; it must be text")
    else:
        raise PersonaProbeError(
            f"{where}: has no field 'messages' (a list of role/content pairs), nor any of {', '.join(CHAT[1:])}, "
            f"{', '.join(QUESTION)}, text; seen: {', '.join(given) or 'nothing'}"
        )
    _add_history(turns, given, where)
    _add_system(turns, given, where)
    _account(turns, given, where, bool(chats))
    return turns


def text_in(given: Mapping[str, Any], name: str, where: str) -> str:
    """The text in a column.

    Raises:
        PersonaProbeError: if it is not text.
    """
    if not isinstance(given[name], str):
        raise PersonaProbeError(f"{where}: {name!r} is {given[name]!r}; it must be text")
    text: str = given[name]
    return text


def text_of(turn: Mapping[str, Any]) -> Any:
    """A message's content, with a list of text parts as one text."""
    content = turn.get("content")
    parts = content if isinstance(content, list) else []
    is_text = bool(parts) and all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in parts)
    return "".join(part["text"] for part in parts) if is_text else content


def whole_number(value: Any, where: str, column: str) -> int:
    """A whole number in a cell; in text files it is a text, and tables may have made it a float.

    Raises:
        PersonaProbeError: if it is not a whole number.
    """
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return int(value)
        if not isinstance(value, bool) and (whole := int(float(value))) == float(value):
            return value if isinstance(value, int) else whole
    raise PersonaProbeError(f"{where}: {column!r} is {value!r}; it must be a whole number")


def _refuse(given: Mapping[str, Any], where: str) -> None:
    if pair := [name for name in _PREFERENCES if name in given]:
        instead = "messages" if is_turns(given[pair[0]]) else "response"
        raise PersonaProbeError(
            f"{where}: has {' and '.join(map(repr, pair))}, as preference data have, and a dialogue has one answer; "
            f"rename the column that is to be read to {instead!r}, and remove the other"
        )
    for name, why in _REFUSED.items():
        if name in given and given[name] not in ("[]", "{}"):
            raise PersonaProbeError(f"{where}: has {name!r} ({str(given[name])[:40]!r}), {why}")


def _ask(turns: RowTurns, given: Mapping[str, Any], questions: Sequence[str], where: str, notes: set[str]) -> None:
    first = questions[0]
    turns.used.add(first)
    if is_turns(given[first]):
        turns.before = turns_of(given[first], where, first, notes)
        return
    text = text_in(given, first, where)
    if first == "instruction":
        further = [name for name in FURTHER_INPUT if name in given]
        if len(further) > 1:
            raise PersonaProbeError(f"{where}: has {' and '.join(map(repr, further))}; leave one out")
        if further:
            text = f"{text}\n{text_in(given, further[0], where)}"
            turns.used.add(further[0])
    turns.before = [{"role": "user", "content": text}]


def _add_history(turns: RowTurns, given: Mapping[str, Any], where: str) -> None:
    """Earlier turns: pairs of a question and its answer, as Alpaca's format has them, or messages."""
    if "history" not in given:
        return
    history = given["history"]
    if isinstance(history, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        earlier = [
            {"role": role, "content": text}
            for pair in history
            for role, text in zip(("user", "assistant"), pair, strict=True)
        ]
    else:
        earlier = turns_of(history, where, "history", set())
    if len(turns.before) > 1:
        raise PersonaProbeError(f"{where}: has 'history' and several messages; put all of them into one column")
    turns.before = [*earlier, *turns.before]
    turns.used.add("history")


def _add_system(turns: RowTurns, given: Mapping[str, Any], where: str) -> None:
    names = [name for name in SYSTEM if name in given]
    if not names:
        return
    texts = {name: text_in(given, name, where) for name in names}
    if len(set(texts.values())) > 1:
        raise PersonaProbeError(f"{where}: has {' and '.join(map(repr, names))}, which differ; remove one")
    system = {"role": "system", "content": texts[names[0]]}
    first = turns.before[0] if turns.before else {}
    if first.get("role") != "system":
        turns.before.insert(0, system)
    elif first.get("content") != system["content"]:
        raise PersonaProbeError(
            f"{where}: has {names[0]!r} ({system['content'][:40]!r}), and its messages begin with another system "
            f"prompt ({str(first.get('content'))[:40]!r}); remove one"
        )
    turns.used.update(names)


def _account(turns: RowTurns, given: Mapping[str, Any], where: str, chat: bool) -> None:
    """Raise if a column holds a part of what is asked that is not in the turns."""
    contents = [content_key([str(turn.get("content"))]) for turn in turns.before]
    said = "\0".join(contents)
    for name in (*QUESTION, *_PASSAGES):
        # Next to a chat or a prompt, "question" names the question; next to a chat, a passage is a label.
        names_it = name == "question" and (chat or "prompt" in turns.used)
        if name not in given or name in turns.used or names_it or (chat and name in _PASSAGES):
            continue
        value = given[name]
        whole_words = rf"(?<!\w){re.escape(content_key([value]) if isinstance(value, str) else '')}(?!\w)"
        if isinstance(value, str) and re.search(whole_words, said):
            turns.used.update([name] if content_key([value]) in contents else [])  # else it is a label
            continue
        other = min(turns.used)
        raise PersonaProbeError(
            f"{where}: has {name!r} ({str(value)[:40]!r}) as well as {other!r}, and it is not in the turns, so it "
            "would not be given to the model; put both into one column, or remove or rename this one"
        )
    text = content_key([str(given.get("text", ""))])
    # What a template made of the turns is a label; anything else may be what is asked about.
    parts = [content_key([given[name]]) for name in turns.used if isinstance(given.get(name), str)]
    written = all(content in text for content in contents) or (not chat and all(part in text for part in parts))
    if text not in said and not written:
        raise PersonaProbeError(
            f"{where}: has 'text' ({str(given['text'])[:40]!r}) and turns, and neither contains the other, so "
            "it would not be given to the model; put both into one column, or remove or rename this one"
        )


def _add_answer(turns: RowTurns, given: Mapping[str, Any], where: str, notes: set[str]) -> None:
    names = [name for name in ANSWER if name in given]
    if not names:
        return
    several = {name: answer_turns(given[name], where, name, notes) for name in names}
    answer = several[names[0]]
    for other in names[1:]:
        if several[other] != answer:
            raise PersonaProbeError(
                f"{where}: {names[0]!r} and {other!r} could both be the answer; remove or rename one"
            )
    turns.used.update(names)
    last = turns.before[-1] if turns.before else {}
    if last.get("role") != "assistant":
        turns.answer = answer
    elif [text_of(last)] != [text_of(turn) for turn in answer]:
        raise PersonaProbeError(
            f"{where}: its messages end with an answer, and {names[0]!r} is another one "
            f"({str(given[names[0]])[:40]!r}); remove one"
        )


def answer_turns(given: Any, where: str, column: str, notes: set[str]) -> list[dict[str, Any]]:
    """The messages in a column of answers: a text is one; a list of messages (TRL's ``completion``) several.

    Raises:
        PersonaProbeError: if it is neither.
    """
    if isinstance(given, str):
        return [{"role": "assistant", "content": given}]
    if is_turns(given) or (isinstance(given, Mapping) and {"content", "value", "tool_calls"} & {*given}):
        return turns_of(given, where, column, notes)
    raise PersonaProbeError(f"{where}: {column!r} is {given!r}; it must be text")


def _add_thought(turns: RowTurns, given: Mapping[str, Any], where: str) -> None:
    """The thought before the answer belongs to the answer's message."""
    last = (turns.answer or turns.before)[-1] if turns.answer or turns.before else {}
    for name in THOUGHT:
        if name not in given:
            continue
        if last.get("role") != "assistant" or is_given(last.get(name)):
            raise PersonaProbeError(
                f"{where}: has {name!r}, and "
                f"{'its answer has another one' if is_given(last.get(name)) else 'no answer to which it belongs'}; "
                "remove the column"
            )
        last[name] = text_in(given, name, where)
        turns.used.add(name)


def _check_learned(turns: RowTurns, given: Mapping[str, Any], where: str) -> None:
    """In a row that is not to be learned, no message is learned."""
    for name in _LEARNED:
        if name not in given:
            continue
        value = given[name]
        flag = {"0": 0, "1": 1, "false": 0, "true": 1}.get(value.strip().lower()) if isinstance(value, str) else value
        if flag not in (0, 1):
            raise PersonaProbeError(
                f"{where}: {name!r} is {value!r}; it must be 0 or 1 (whether this row's answers are learned): rows "
                "cannot be weighted, so remove the column, or repeat rows"
            )
        turns.used.add(name)
        if not flag:
            for turn in (*turns.before, *turns.answer):
                turn["weight"] = 0


def plain_text_in(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """The plain text that `persona_probe.dialogue.records.write_dialogues` wrote as one message, or None."""
    if len(messages) == 1 and messages[0].get("role") == TEXT and isinstance(messages[0].get("content"), str):
        text: str = messages[0]["content"]
        return text
    return None
