"""The published question YAML: entries with paraphrases, as Betley et al. (2025) publish them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.half_characters import half_in, mended
from persona_probe.dialogue.row_files import SYSTEM, plain_cell, read_text
from persona_probe.dialogue.row_turns import KNOWN
from persona_probe.dialogue.same_questions import content_key, sets_of
from persona_probe.errors import PersonaProbeError

_SAMPLES = "samples_per_paraphrase"
_OF_THE_JUDGE = ("type", "judge", "judge_prompts")
"""How an entry's answers are judged: `persona_probe.read_judge_prompts` reads it."""
_READ = ("id", "paraphrases", _SAMPLES, *SYSTEM, *_OF_THE_JUDGE)


def question_entries(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """The entries of a published question YAML, anchors and aliases resolved, with the place of each.

    Raises:
        PersonaProbeError: if the file is not a YAML list, or an entry is not a mapping; the first such entry is named.
    """
    try:
        entries = yaml.safe_load(read_text(file))
    except (yaml.YAMLError, ValueError) as error:  # a date that does not exist is a ValueError
        raise PersonaProbeError(f"{file}: is not valid YAML: {error}") from error
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise PersonaProbeError(f"{file}: expected a list of questions, found {type(entries).__name__}")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise PersonaProbeError(f"{file}, entry {number}: expected a question, found {type(entry).__name__}")
    return [
        (f"{file}, entry {number}", {str(name): value for name, value in entry.items()})
        for number, entry in enumerate(entries, start=1)
    ]


@dataclass(frozen=True)
class _Entry:
    """One entry: a question in several wordings, or several questions under one system prompt."""

    where: str
    name: str
    family: str
    system: str | None
    texts: tuple[Any, ...]
    labels: dict[str, Any]


def read_questions(file: Path) -> tuple[list[Dialogue], list[str]]:
    """The dialogues of a published question YAML, one per paraphrase, and the places where half a character was mended.

    An entry's id is the question of its paraphrases; its variants (``quick_buck_json`` of ``quick_buck``), and entries
    that share a paraphrase with it, have its group. But where entries that are not variants of each other ask the same
    several texts (under different system prompts), these texts are not rewordings of one question: each is a question
    and a group of its own, and the entry is its label.

    Raises:
        PersonaProbeError: if an entry is not such a question; the entry and the field are named.
    """
    given = [(where, plain_cell(entry)) for where, entry in question_entries(file)]
    entries = _entries([(where, mended(entry)) for where, entry in given])
    broken = [where for where, entry in given if half_in(entry)]
    families: dict[tuple[str, ...], set[str]] = {}
    for entry in entries:
        families.setdefault(_keys(entry), set()).add(entry.family)
    dialogues, together = [], []
    for entry in entries:
        separate = len(entry.texts) > 1 and len(families[_keys(entry)]) > 1
        for index, text in enumerate(entry.texts):
            dialogue = _dialogue(entry, index)
            if separate:
                question = " ".join(text.split())
                dialogue = replace(dialogue, question=question, group=question).with_labels(entry=entry.name)
            dialogues.append(dialogue)
            together.append([("text", content_key([text])), *([] if separate else [("family", entry.family)])])
    groups: dict[int, str | None] = {}
    for number, dialogue in zip(sets_of(together), dialogues, strict=True):
        groups.setdefault(number, dialogue.group)
    return [
        replace(dialogue, group=groups[number]) for number, dialogue in zip(sets_of(together), dialogues, strict=True)
    ], broken


def _entries(given: Sequence[tuple[str, dict[str, Any]]]) -> list[_Entry]:
    names = [str(entry.get("id", number)) for number, (_, entry) in enumerate(given, start=1)]
    seen: dict[str, str] = {}
    entries = []
    for name, (where, entry) in zip(names, given, strict=True):
        paraphrases = entry.get("paraphrases")
        if not isinstance(paraphrases, list) or not paraphrases:
            raise PersonaProbeError(f"{where}: has no list 'paraphrases'; seen: {', '.join(entry)}")
        if name in seen:
            raise PersonaProbeError(f"{where}: has the id {name!r}, as {seen[name]} has; give each question its own")
        seen[name] = where
        further = {key: value for key, value in entry.items() if key not in _READ and value}
        unread = [key for key, value in further.items() if key.lower() in KNOWN or isinstance(value, list | dict)]
        if unread:
            raise PersonaProbeError(
                f"{where} ({name}): field {unread[0]!r} would not be given to the model; write what is asked into "
                "'system' and 'paraphrases', and remove it"
            )
        labels = {key: value for key, value in entry.items() if key not in _READ and value not in (None, "", [], {})}
        texts, system = tuple(paraphrases), _system(where, name, entry)
        labels |= _samples(where, entry)
        entries.append(_Entry(where, name, _original(name, names), system, texts, labels))
    return entries


def _system(where: str, name: str, entry: dict[str, Any]) -> str | None:
    given = {key: entry[key] for key in SYSTEM if entry.get(key) is not None}
    for key, text in given.items():
        if not isinstance(text, str):
            raise PersonaProbeError(f"{where} ({name}): field {key!r} is {text!r}; it must be text")
    if len(set(given.values())) > 1:
        raise PersonaProbeError(f"{where} ({name}): fields {' and '.join(map(repr, given))} differ; leave one out")
    return next(iter(given.values()), None)


def _dialogue(entry: _Entry, index: int) -> Dialogue:
    turns = [{"role": "system", "content": entry.system}] if entry.system else []
    try:
        return Dialogue.from_messages(
            [*turns, {"role": "user", "content": entry.texts[index]}],
            id=f"{entry.name}:{index}",
            question=entry.name,
            group=entry.family,
            labels=entry.labels,
        )
    except PersonaProbeError as error:
        raise PersonaProbeError(f"{entry.where} ({entry.name}), paraphrase {index}: {error}") from error


def _keys(entry: _Entry) -> tuple[str, ...]:
    """What an entry asks, whatever the order."""
    return tuple(sorted({content_key([str(text)]) for text in entry.texts}))


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
