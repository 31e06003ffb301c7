"""Dialogues as JSON lines, from which the same dialogues can be read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from persona_probe.dialogue.dialogue import Dialogue, Message
from persona_probe.errors import PATH, check_types
from persona_probe.files import plain, write_text


def as_record(dialogue: Dialogue) -> dict[str, Any]:
    """Everything that a dialogue contains, as values for JSON."""
    return {
        "messages": [message_record(message) for message in dialogue.messages],
        "id": dialogue.id,
        "question": dialogue.question,
        "group": dialogue.group,
        "seed": plain(dialogue.seed),
        "labels": plain(dialogue.labels),
    }


def from_record(record: Mapping[str, Any]) -> Dialogue:
    """The dialogue that `as_record` wrote; unlike `persona_probe.read_dialogues`, this fills nothing in."""
    rest = {name: record[name] for name in ("id", "question", "group", "seed", "labels")}
    return Dialogue(tuple(_message_of(turn) for turn in record["messages"]), **rest)


def message_record(message: Message) -> dict[str, Any]:
    """Everything that a message contains, as `persona_probe.Dialogue.from_messages` reads it."""
    return message.as_dict() | ({} if message.learned else {"weight": 0})


def _message_of(turn: Mapping[str, Any]) -> Message:
    further = {name: value for name, value in turn.items() if name not in ("role", "content", "weight")}
    return Message(turn["role"], turn["content"], further, bool(turn.get("weight", 1)))


def write_dialogues(path: str | Path, dialogues: Iterable[Dialogue]) -> Path:
    """Write one JSON object per line and return the path; `persona_probe.read_dialogues` reads the file.

    The file appears only once it is complete.

    Examples:
        >>> dialogue = Dialogue.from_messages([{"role": "user", "content": "Is it raining?"}], id="rain")
        >>> path = write_dialogues("dialogues.jsonl", [dialogue])
        >>> read_records(path) == [dialogue]
        True
    """
    check_types(path=(path, PATH))
    # ASCII, so that what UTF-8 cannot hold (half a surrogate pair in a model's answer) is written too.
    return write_text(Path(path), "".join(json.dumps(as_record(dialogue)) + "\n" for dialogue in dialogues))


def read_records(path: str | Path) -> list[Dialogue]:
    """The dialogues that `write_dialogues` wrote, unchanged."""
    # Split at newlines alone: model output may contain any of the other line breaks that str.splitlines knows.
    return [from_record(json.loads(line)) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
