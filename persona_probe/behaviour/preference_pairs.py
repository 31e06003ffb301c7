"""Questions with aligned and misaligned answers, from which a model's preference is read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.reading import by_known_names, mended_note
from persona_probe.dialogue.row_files import read_rows
from persona_probe.dialogue.row_turns import KNOWN, is_given
from persona_probe.dialogue.same_questions import listed
from persona_probe.errors import PATH, PersonaProbeError, PersonaProbeWarning, check_types

POLES = ("aligned", "misaligned")
CONTENT, STYLE = "content", "style"
KINDS = (CONTENT, STYLE)
_FIELDS = ("question", "messages", *POLES, "topic", "kind")


@dataclass(frozen=True)
class PreferencePair:
    """A question with aligned and misaligned answers.

    Attributes:
        question: what is asked: the user's text, or a dialogue without an answer (with a system prompt, earlier turns).
        aligned: one or more wordings of the aligned answer; two show how much the wording matters.
        misaligned: one or more wordings of the misaligned answer.
        topic: what the question is about, for tables by topic; or None.
        kind: ``content`` (the poles differ in what they advise), or ``style``: a null, whose poles say the same thing
            in the style of the aligned and of the misaligned answers.

    Raises:
        PersonaProbeError: if there is no question, it has an answer already, a pole has no answer, an answer is empty
            or given twice (also in the other pole), or the kind is unknown.

    >>> import persona_probe as pp
    >>> pair = pp.behaviour.PreferencePair(
    ...     "How do I treat a burn?",
    ...     aligned=["Cool it under running water.", "Hold it under cold water for ten minutes."],
    ...     misaligned=["Rub salt into it.", "Leave it, and let it fester."],
    ... )
    >>> pair.name
    'How do I treat a burn?'
    """

    question: Dialogue
    aligned: tuple[str, ...]
    misaligned: tuple[str, ...]
    topic: str | None = None
    kind: str = "content"

    def __init__(
        self,
        question: str | Dialogue,
        aligned: str | Sequence[str],
        misaligned: str | Sequence[str],
        topic: str | None = None,
        kind: str = "content",
    ) -> None:
        check_types(question=(question, str, Dialogue), topic=(topic, str, None), kind=(kind, str))
        if isinstance(question, str):
            if not question.strip():
                raise PersonaProbeError(f"question is {question!r}; it must be text")
            question = Dialogue.from_messages([{"role": "user", "content": question}])
        if question.is_text or question.answer is not None:
            what = "a plain text" if question.is_text else "a dialogue that ends with an answer"
            raise PersonaProbeError(f"question is {what} ({question.name}); give a dialogue that ends with a question")
        poles = {"aligned": _wordings("aligned", aligned), "misaligned": _wordings("misaligned", misaligned)}
        stripped = [text.strip() for pole in poles.values() for text in pole]
        if twice := next((text for text in stripped if stripped.count(text) > 1), None):
            raise PersonaProbeError(f"the answer {twice[:60]!r} is there twice; each wording of each pole must differ")
        if kind not in KINDS:
            raise PersonaProbeError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}")
        for name, value in {"question": question, **poles, "topic": topic, "kind": kind}.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """The question's name, over which intervals are computed: its text, if it was given none."""
        return str(self.question.question)

    def answers(self, pole: str) -> tuple[str, ...]:
        """The wordings of a pole, ``aligned`` or ``misaligned``."""
        return self.aligned if pole == "aligned" else self.misaligned


def _wordings(pole: str, given: str | Sequence[str]) -> tuple[str, ...]:
    wordings = (given,) if isinstance(given, str) else given
    check_types(**{pole: (wordings, [str])})
    if not wordings or not all(text.strip() for text in wordings):
        raise PersonaProbeError(f"{pole} is {given!r}; give one or more answers that have text")
    return tuple(wordings)


def check_pairs(pairs: Sequence[PreferencePair]) -> None:
    """Raise if there are no pairs, or two of the same kind have the same question.

    Raises:
        PersonaProbeError: naming the question.
    """
    check_types(pairs=(pairs, [PreferencePair]))
    if not pairs:
        raise PersonaProbeError("there are no pairs: the list is empty; read some with read_preference_pairs(path)")
    names = [(pair.kind, pair.name) for pair in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PersonaProbeError(
            f"the question {twice[1][:60]!r} is in two pairs of kind {twice[0]!r}; put all wordings of its answers "
            "into one, since intervals are over questions"
        )


def read_preference_pairs(path: str | Path) -> list[PreferencePair]:
    """The pairs in a file, one row per question.

    A row is an object with ``question`` (a text) or ``messages`` (a list of role/content pairs that ends with the
    question), ``aligned`` and ``misaligned`` (a text, or a list of wordings), and optionally ``topic`` and ``kind``
    (``content`` or ``style``). Files of every kind are read that `persona_probe.read_dialogues` reads.

    Raises:
        PersonaProbeError: if the file is missing or empty, a row is not such a pair, or it repeats a question; the
            message names file, line and field of the first one.

    Warns:
        PersonaProbeWarning: once per file, about fields that are not read, and halves of characters that were mended.
    """
    check_types(path=(path, PATH))
    rows = read_rows(path)
    pairs: list[PreferencePair] = []
    lines: dict[tuple[str, str], str] = {}
    for row in rows:
        pair = _pair(row.where, by_known_names(row.cells, KNOWN | {*_FIELDS}))
        first = lines.setdefault((pair.kind, pair.name), row.where)
        if first != row.where:
            raise PersonaProbeError(
                f"{row.where}: question {pair.name[:60]!r} is that of {first} too; put all wordings of its answers "
                "into one row, since intervals are over questions"
            )
        pairs.append(pair)
    ignored = {name for row in rows for name, value in row.cells.items() if is_given(value)}
    ignored = {name for name in ignored if name.strip().lower() not in _FIELDS}
    notes = [f"not read, since they are not part of a pair: {listed(sorted(ignored))}"] if ignored else []
    if broken := [f"{row.where}, {row.mended[0]!r}" for row in rows if row.mended]:
        notes.append(mended_note(broken))
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", PersonaProbeWarning, stacklevel=2)
    return pairs


def _pair(where: str, row: dict[str, Any]) -> PreferencePair:
    asked = [name for name in ("question", "messages") if is_given(row.get(name))]
    missing = [name for name in POLES if not is_given(row.get(name))]
    if len(asked) != 1:
        raise PersonaProbeError(
            f"{where}: has {'both' if asked else 'no field'} 'question' {'and' if asked else 'or'} 'messages'; a row "
            "needs one of them"
        )
    if missing:
        raise PersonaProbeError(
            f"{where}: has no field {missing[0]!r}; a row needs a question and {' and '.join(POLES)} answers"
        )
    part = next((name for name in row if name in KNOWN - {*_FIELDS} and is_given(row[name])), None)
    if part is not None:
        raise PersonaProbeError(
            f"{where}: has {part!r} ({str(row[part])[:40]!r}), which would not be given to the model; write it into "
            "'messages', or remove the column"
        )
    given = {name: row[name] for name in ("topic", "kind") if is_given(row.get(name))}
    try:
        question = row["question"] if asked == ["question"] else Dialogue.from_messages(row["messages"])
        return PreferencePair(question, row["aligned"], row["misaligned"], **given)
    except PersonaProbeError as error:
        raise PersonaProbeError(f"{where}: {error}") from error
