"""Reading dialogues from files, in every common row format, or from the published question YAML."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.question_files import read_questions
from persona_probe.dialogue.row_files import Row, as_path, existing, json_value, kind_of, read_rows
from persona_probe.dialogue.row_turns import KNOWN, RowTurns, is_given, plain_text_in, row_turns, whole_number
from persona_probe.dialogue.same_questions import Asked, content_key, groups_by_content, listed
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning

_IDENTITY = ("id", "question", "group", "seed", "labels")


def read_dialogues(path: str | Path) -> list[Dialogue]:
    r"""The dialogues in a file: ``.jsonl``, ``.json``, ``.parquet``, ``.arrow``, ``.csv``, ``.tsv`` or ``.yaml``.

    Text files may end in ``.gz``, and the folder of a data set that ``save_to_disk`` wrote is read too. These row
    formats are known by their columns, and their names may be in capitals:

    - ``messages`` (OpenAI, Hugging Face) or ``conversations`` (ShareGPT, ``from``/``value``);
    - ``instruction``, ``input`` and ``output`` (Alpaca; the input follows the instruction on a new line), also with
      ``history``; ``instruction``, ``context`` and ``response`` (Dolly);
    - ``prompt`` and ``completion`` (TRL, texts or messages) or ``response``; ``query`` and ``response``; ``question``
      and ``answer``. Without an answer, the dialogue ends with the question;
    - ``text`` alone: a plain text.

    A system prompt (``system``, ``system_prompt``) becomes the first turn, wherever it is. Messages may contain tool
    calls, a thought (``reasoning_content``, ``thinking``) and ``weight`` or ``train``, which say whether an answer is
    learned; rows too. ``id``, ``question``, ``group``, ``seed`` and ``labels`` are used where they are given. **Any
    other column becomes a label**, and what data sets note of a message (its language, its time) is not read; one that
    would have to be given to the model and has no place (``tools``, images, a second question), and preference data
    (``chosen``, ``rejected``), are refused by name. Rows without an id are named ``FILE:LINE``; rows without a question
    get their last user turn as question.

    A YAML file is a list of entries with ``id`` and ``paraphrases``, as Betley et al. (2025) publish them; an entry's
    ``system`` becomes a system turn, each paraphrase a dialogue, and ``samples_per_paraphrase`` (how often the authors
    asked it) a label. Variants of a question (``quick_buck_json`` of ``quick_buck``) have its group. Where several
    entries ask the same list of texts, each text is a question and a group, and the entry a label.

    Rows with the same user turns have the same group, whatever they are called, so that no question is on both sides of
    a grouped split. A lone surrogate (half of an emoji) becomes U+FFFD.

    Raises:
        PersonaProbeError: if the file is missing, empty or of another kind, or a row is not a dialogue; then file, line
            and field of the first such row are named.

    Warns:
        PersonaProbeWarning: once per file, if roles were read as others, groups were merged, or text was mended.

    Examples:
        >>> line = '{"messages": [{"role": "user", "content": "Is it raining?"}], "topic": "weather"}'
        >>> _ = Path("questions.jsonl").write_text(line)
        >>> (dialogue,) = read_dialogues("questions.jsonl")
        >>> dialogue.id, dialogue.question, dialogue.labels
        ('questions.jsonl:1', 'Is it raining?', {'topic': 'weather'})
        >>> _ = Path("alpaca.jsonl").write_text('{"instruction": "Translate:", "input": "cat", "output": "chat"}')
        >>> read_dialogues("alpaca.jsonl")[0].as_messages()
        [{'role': 'user', 'content': 'Translate:\ncat'}, {'role': 'assistant', 'content': 'chat'}]
    """
    notes: set[str] = set()
    file = as_path(path)
    if kind_of(file) in (".yaml", ".yml"):
        dialogues, broken = read_questions(existing(path))
    else:
        rows = read_rows(path)
        read = [_read(row, file.name, notes) for row in rows]
        groups, remarks = groups_by_content([one.asked for one in read])
        dialogues = [replace(one.dialogue, group=group) for one, group in zip(read, groups, strict=True)]
        notes.update([*remarks, *_repeated_ids(read)])
        broken = [f"{row.where}, {row.mended[0]!r}" for row in rows if row.mended]
    if not dialogues:
        raise PersonaProbeError(f"{path}: is empty; it needs at least one dialogue")
    if broken:
        notes.add(mended_note(broken))
    if notes:
        warnings.warn(f"{path}: {'; '.join(sorted(notes))}", PersonaProbeWarning, stacklevel=2)
    return dialogues


def mended_note(places: Sequence[str]) -> str:
    """What a reader should know if half a character was replaced at these places."""
    more = f" and at {len(places) - 1} other places" if len(places) > 1 else ""
    return f"half a character (a lone surrogate, which no tokenizer reads) became U+FFFD at {places[0]}{more}"


def by_known_names(cells: Mapping[str, Any], known: Sequence[str] | frozenset[str]) -> dict[str, Any]:
    """``cells`` with the names that are known in small letters, unless the file has both."""
    small = {name: name.strip().lower() for name in cells}
    times = Counter(small.values())
    return {
        small[name] if small[name] in known and times[small[name]] == 1 else name: value
        for name, value in cells.items()
    }


@dataclass(frozen=True)
class _Read:
    dialogue: Dialogue
    asked: Asked
    named: bool


def _read(row: Row, file: str, notes: set[str]) -> _Read:
    cells = by_known_names(row.cells, KNOWN | {*_IDENTITY})
    turns = row_turns(cells, row.where, notes)
    labels = _labels(cells, turns, row.where)
    name = cells.get("id")
    name = int(name) if isinstance(name, float) and name.is_integer() else name
    about: dict[str, Any] = {"id": str(name) if is_given(name) else f"{file}:{row.number}", "labels": labels}
    # Next to a chat or a prompt "question" is a name; where it was read as what is asked, the name is the text.
    question = None if "question" in turns.used and "prompt" not in turns.used else _text(cells, "question", row.where)
    group = _text(cells, "group", row.where)
    try:
        text = turns.text if turns.text is not None else plain_text_in(turns.before)
        if text is not None:
            dialogue = Dialogue.from_text(text, **about)
        else:
            dialogue = Dialogue.from_messages([*turns.before, *turns.answer], **about)
    except PersonaProbeError as error:
        raise PersonaProbeError(f"{row.where}: {error}") from error
    dialogue = replace(dialogue, question=question or dialogue.question, group=group, seed=_seed(cells, row.where))
    users = [message.content for message in dialogue.messages if message.role != "assistant" or dialogue.is_text]
    users = [message.content for message in dialogue.messages if message.role == "user"] or users
    whole = [f"{message.role}:{message.content}" for message in dialogue.without_answer().messages]
    key = content_key(users) if any(users) else None
    return _Read(dialogue, Asked(key, content_key(whole), question, group, dialogue.question), is_given(name))


def _labels(cells: Mapping[str, Any], turns: RowTurns, where: str) -> dict[str, Any]:
    given = cells.get("labels")
    if isinstance(given, str) and given.lstrip().startswith("{"):
        given = json_value(given, f"{where}: field 'labels'")
    if is_given(given) and not isinstance(given, dict):
        raise PersonaProbeError(f"{where}: field 'labels' is {given!r}; it must be an object")
    labels = {
        name: value
        for name, value in cells.items()
        if name not in turns.used and name not in _IDENTITY and (name not in KNOWN or is_given(value))
    }
    for name, value in (given or {}).items():
        if is_given(labels.get(name)) and labels[name] != value:
            raise PersonaProbeError(
                f"{where}: has the label {name!r} twice ({labels[name]!r}, and {value!r} in 'labels'); remove one"
            )
        labels[name] = value
    return labels


def _text(cells: Mapping[str, Any], name: str, where: str) -> str | None:
    value = cells.get(name)
    if not is_given(value):
        return None
    if not isinstance(value, str):
        raise PersonaProbeError(f"{where}: field {name!r} is {value!r}; it must be text")
    return value


def _seed(cells: Mapping[str, Any], where: str) -> int | None:
    value = cells.get("seed")
    return whole_number(value, where, "seed") if is_given(value) else None


def _repeated_ids(rows: Sequence[_Read]) -> list[str]:
    """Ids that several questions have; several answers to one question may share theirs."""
    asked: dict[str | None, set[str | None]] = defaultdict(set)
    for row in rows:
        if row.named:
            asked[row.dialogue.id].add(row.asked.text)
    names = [str(name) for name, questions in asked.items() if len(questions) > 1]
    if not names:
        return []
    return [
        f"different questions have the same id ({listed(names)}), so that errors and tables cannot distinguish them"
    ]
