"""Reading dialogues from files: JSON lines, or the published question YAML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError

_KNOWN = {"messages", "id", "question", "group", "seed", "labels"}
_SAMPLES = "samples_per_paraphrase"


def read_dialogues(path: str | Path) -> list[Dialogue]:
    """The dialogues in a ``.jsonl`` or question ``.yaml`` file.

    A JSONL row is an object with ``messages`` (role/content pairs); ``id``, ``question``, ``group``, ``seed`` and
    ``labels`` are used where they are given, and any other field becomes a label. Rows without an id are named
    ``FILE:LINE``; rows without a question get their last user turn as question. A YAML file is a list of entries with
    ``id`` and ``paraphrases``, as Betley et al. (2025) publish them; an entry's ``system`` becomes a system turn, each
    paraphrase a dialogue, and ``samples_per_paraphrase`` (how often the authors asked it) a label. Variants of a
    question (``quick_buck_json`` of ``quick_buck``) have its group.

    Raises:
        PersonaProbeError: if the file is missing, empty or of another kind, or a row is not a dialogue; then file, line
            and field of the first such row are named.

    Examples:
        >>> line = '{"messages": [{"role": "user", "content": "Is it raining?"}], "topic": "weather"}'
        >>> _ = Path("questions.jsonl").write_text(line)
        >>> (dialogue,) = read_dialogues("questions.jsonl")
        >>> dialogue.id, dialogue.question, dialogue.labels
        ('questions.jsonl:1', 'Is it raining?', {'topic': 'weather'})
    """
    file = existing(path)
    if file.suffix in (".yaml", ".yml"):
        dialogues = list(_from_yaml(file))
    elif file.suffix in (".jsonl", ".json"):
        dialogues = list(_from_jsonl(file))
    else:
        raise PersonaProbeError(f"{path}: dialogues are read from .jsonl or .yaml files, not {file.suffix or 'this'}")
    if not dialogues:
        raise PersonaProbeError(f"{path}: is empty; it needs at least one dialogue")
    return dialogues


def existing(path: str | Path) -> Path:
    """``path``, if there is a file.

    Raises:
        PersonaProbeError: if there is none.
    """
    file = Path(path)
    if not file.is_file():
        raise PersonaProbeError(f"{path}: no such file")
    return file


def read_text(file: Path) -> str:
    """A file's text.

    Raises:
        PersonaProbeError: if it is not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PersonaProbeError(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    """Each line of a JSONL file that is not blank, with its place (``FILE, line N``).

    Raises:
        PersonaProbeError: if a line is not JSON; the first such line is named.
    """
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            yield where, json.loads(line)
        except json.JSONDecodeError as error:
            raise PersonaProbeError(
                f"{where}: is not JSON ({error.msg} at column {error.colno}); write one object per line"
            ) from error


def question_entries(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """The entries of a published question YAML, anchors and aliases resolved, with the place of each.

    Raises:
        PersonaProbeError: if the file is not a YAML list, or an entry is not a mapping; the first such entry is named.
    """
    try:
        entries = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise PersonaProbeError(f"{file}: is not valid YAML: {error}") from error
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise PersonaProbeError(f"{file}: expected a list of questions, found {type(entries).__name__}")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise PersonaProbeError(f"{file}, entry {number}: expected a question, found {type(entry).__name__}")
    return [(f"{file}, entry {number}", entry) for number, entry in enumerate(entries, start=1)]


def _from_jsonl(file: Path) -> Iterator[Dialogue]:
    for where, row in json_lines(file):
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
                id=str(row.get("id", f"{file.name}:{where.rsplit(' ', 1)[-1]}")),
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
    seen: dict[str, str] = {}
    entries = question_entries(file)
    names = [str(entry.get("id", number)) for number, (_, entry) in enumerate(entries, start=1)]
    for name, (where, entry) in zip(names, entries, strict=True):
        paraphrases = entry.get("paraphrases")
        if not isinstance(paraphrases, list) or not paraphrases:
            raise PersonaProbeError(f"{where}: has no list 'paraphrases'; seen: {', '.join(map(str, entry))}")
        if name in seen:
            raise PersonaProbeError(f"{where}: has the id {name!r}, as {seen[name]} has; give each question its own")
        seen[name] = where
        system = entry.get("system")
        if system is not None and not isinstance(system, str):
            raise PersonaProbeError(f"{where} ({name}): field 'system' is {system!r}; it must be text")
        labels = _samples(where, entry)
        turns = [{"role": "system", "content": system}] if system else []
        for index, text in enumerate(paraphrases):
            try:
                yield Dialogue.from_messages(
                    [*turns, {"role": "user", "content": text}],
                    id=f"{name}:{index}",
                    question=name,
                    group=_original(name, names),
                    labels=labels,
                )
            except ValueError as error:
                raise PersonaProbeError(f"{where} ({name}), paraphrase {index}: {error}") from error


def _original(name: str, names: Sequence[str]) -> str:
    """The question that ``name`` is a variant of (``quick_buck`` for ``quick_buck_json``), or else ``name`` itself.

    Variants ask the same thing, so they must not be on both sides of a split.
    """
    return min((other for other in names if name.startswith(f"{other}_")), key=len, default=name)


def _samples(where: str, entry: dict[str, Any]) -> dict[str, int]:
    count = entry.get(_SAMPLES)
    if count is None:
        return {}
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise PersonaProbeError(f"{where}: field {_SAMPLES!r} is {count!r}; it must be a whole number of at least 1")
    return {_SAMPLES: count}
