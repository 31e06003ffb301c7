"""Reading dialogues from files: JSON lines, or the published question YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError

_KNOWN = {"messages", "id", "question", "group", "seed", "labels"}


def read_dialogues(path: str | Path) -> list[Dialogue]:
    """Read dialogues from a ``.jsonl`` or question ``.yaml`` file.

    A JSONL row is an object with ``messages`` (role/content pairs); ``id``, ``question``, ``group``, ``seed`` and
    ``labels`` are used when there, any other field becomes a label. Rows without an id are named ``FILE:LINE``; rows
    without a question get their last user turn. A YAML file is a list of entries with ``id`` and ``paraphrases``, as
    Betley et al. (2025) publish them; an entry's ``system`` becomes a system turn, each paraphrase a dialogue.

    Raises:
        PersonaProbeError: if the file is missing, empty or of another kind, or naming file, line and field of the first
            row that is no dialogue.
    """
    file = Path(path)
    if not file.is_file():
        raise PersonaProbeError(f"{path}: no such file")
    if file.suffix in (".yaml", ".yml"):
        dialogues = list(_from_yaml(file))
    elif file.suffix in (".jsonl", ".json"):
        dialogues = list(_from_jsonl(file))
    else:
        raise PersonaProbeError(f"{path}: dialogues are read from .jsonl or .yaml files, not {file.suffix or 'this'}")
    if not dialogues:
        raise PersonaProbeError(f"{path}: is empty; it needs at least one dialogue")
    return dialogues


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PersonaProbeError(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _from_jsonl(file: Path) -> Iterator[Dialogue]:
    for number, line in enumerate(_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise PersonaProbeError(
                f"{where}: is not JSON ({error.msg} at column {error.colno}); one object a line"
            ) from error
        if not isinstance(row, dict) or "messages" not in row:
            seen = f"fields {', '.join(row)}" if isinstance(row, dict) else type(row).__name__
            raise PersonaProbeError(f"{where}: has no field 'messages' (a list of role/content pairs); seen: {seen}")
        seed = row.get("seed")
        if seed is not None and not isinstance(seed, int):
            raise PersonaProbeError(f"{where}: field 'seed' is {seed!r}; it must be a whole number")
        for name in ("question", "group"):
            if row.get(name) is not None and not isinstance(row[name], str):
                raise PersonaProbeError(f"{where}: field {name!r} is {row[name]!r}; it must be text")
        labels = row.get("labels") or {}
        if not isinstance(labels, dict):
            raise PersonaProbeError(f"{where}: field 'labels' is {labels!r}; it must be an object")
        try:
            yield Dialogue.from_messages(
                row["messages"],
                id=str(row.get("id", f"{file.name}:{number}")),
                question=row.get("question") or _last_user_turn(row["messages"]),
                group=row.get("group"),
                seed=seed,
                labels={**{key: value for key, value in row.items() if key not in _KNOWN}, **labels},
            )
        except ValueError as error:
            raise PersonaProbeError(f"{where}: {error}") from error


def _last_user_turn(messages: Any) -> str | None:
    if not isinstance(messages, list):
        return None
    turns = [
        message.get("content") for message in messages if isinstance(message, dict) and message.get("role") == "user"
    ]
    return turns[-1] if turns and isinstance(turns[-1], str) else None


def _from_yaml(file: Path) -> Iterator[Dialogue]:
    try:
        entries = yaml.safe_load(_text(file))
    except yaml.YAMLError as error:
        raise PersonaProbeError(f"{file}: is not valid YAML: {error}") from error
    if entries is None:
        return
    if not isinstance(entries, list):
        raise PersonaProbeError(f"{file}: expected a list of questions, found {type(entries).__name__}")
    for number, entry in enumerate(entries, start=1):
        where = f"{file}, entry {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("paraphrases"), list):
            raise PersonaProbeError(f"{where}: has no list 'paraphrases'")
        name = str(entry.get("id", number))
        system = [{"role": "system", "content": entry["system"]}] if entry.get("system") else []
        for index, text in enumerate(entry["paraphrases"]):
            try:
                yield Dialogue.from_messages(
                    [*system, {"role": "user", "content": text}], id=f"{name}:{index}", question=name, group=name
                )
            except ValueError as error:
                raise PersonaProbeError(f"{where} ({name}), paraphrase {index}: {error}") from error
