"""One row of a file of answers as a row of our table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.answer_file_columns import GivenScore, given_score
from persona_probe.behaviour.judges.judge import ANSWER_FIELDS
from persona_probe.dialogue.dialogue import Dialogue, Message
from persona_probe.dialogue.reading import by_known_names, mended_note
from persona_probe.dialogue.records import message_record
from persona_probe.dialogue.row_files import SYSTEM, Row, json_value
from persona_probe.dialogue.row_turns import (
    KNOWN,
    NOT_LABELS,
    PARTS,
    QUESTION,
    THOUGHT,
    answer_turns,
    is_given,
    question_turns,
    text_of,
    whole_number,
)
from persona_probe.dialogue.same_questions import Asked, content_key, listed
from persona_probe.errors import PersonaProbeError


def sentence(text: str) -> str:
    """A remark as a sentence."""
    return text[:1].upper() + text[1:]


@dataclass
class AnswerReading:
    """Turns rows of a file into rows of our table, and counts what was unusual."""

    chosen: Mapping[str, str]
    given: frozenset[str]
    unread: set[str]
    asked: list[Asked] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    no_scores: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    unanswered: int = 0

    def row(self, row: Row) -> dict[str, Any]:
        """A row of our table."""
        before, answer = self._turns(row)
        self.unanswered += answer is None
        self.mended += [f"{row.where}, {name!r}" for name in row.mended]
        name = self._cell(row, "id")
        scores = {column: self._score(row, column) for column in ("aligned", "coherent")}
        refusal = any(score.refusal for score in scores.values()) or self._truth(row, "refusal")
        values = {column: score.value if answer is not None else np.nan for column, score in scores.items()}
        failed = (np.isnan(values["aligned"]) or np.isnan(values["coherent"])) and not refusal
        given, group = self._cell(row, "question"), self._text(row, "group")
        given = None if given is None else str(given)
        prompt = before[-1].content
        users = [message.content for message in before if message.role == "user"]
        whole = [f"{message.role}:{message.content}" for message in before]
        question = given if given is not None else prompt
        named = given if self.chosen.get("question") != self.chosen.get("prompt") else None
        self.asked.append(Asked(content_key(users or [prompt]), content_key(whole), named, group, question))
        ours = {
            "id": str(name) if name is not None else row.where.rsplit("/", 1)[-1],
            "question": question,
            "group": group,
            "seed": self._whole(row, "seed"),
            "prompt": prompt,
            "answer": None if answer is None else answer.content,
            **values,
            "refusal": refusal,
            "failed": failed,
        }
        more: dict[str, str | None] = {"model": str(model)} if (model := self._cell(row, "model")) is not None else {}
        records = [message_record(message) for message in before]
        simple = [message.role for message in before] == ["user"] and len(records[0]) == 2
        more["messages"] = None if simple else json.dumps(records, ensure_ascii=False)
        fields = dict(answer.further) if answer is not None else {}
        more[ANSWER_FIELDS] = json.dumps(fields, ensure_ascii=False) if fields else None
        return {**ours, **more, **self._others(row, {*ours, *more}, failed)}

    def remarks(self, table: pd.DataFrame) -> list[str]:
        """What the reader should know, in sentences."""
        sentences = []
        if self.unanswered:
            sentences.append(f"{self.unanswered} of {len(table)} rows hold no answer and count as failures")
        if self.no_scores:
            more = f", and {len(self.no_scores) - 1} more" if len(self.no_scores) > 1 else ""
            sentences.append(f"Scores that are not numbers count as failures: {self.no_scores[0]}{more}")
        if ANSWER_FIELDS in table:
            number = int(table[ANSWER_FIELDS].notna().sum())
            sentences.append(
                f"{number} of {len(table)} answers contain more than text (tool calls, a thought): it is in "
                f"{ANSWER_FIELDS!r} and in dialogues(), but judges read the text alone"
            )
        if self.unread:
            sentences.append(
                f"Not read, since they say nothing of the answer's text: {listed(sorted(self.unread), 12)} of requests "
                "and responses"
            )
        if self.replaced:
            sentences.append(
                f"Not read, since another column is used or it is computed anew: {listed(sorted(self.replaced))}"
            )
        if self.mended:
            sentences.append(sentence(mended_note(self.mended)))
        return [*sentences, *map(sentence, sorted(self.notes))]

    def _cell(self, row: Row, ours: str) -> Any:
        value = row.cells.get(self.chosen[ours]) if ours in self.chosen else None
        return value if is_given(value) else None

    def _text(self, row: Row, ours: str) -> str | None:
        value = self._cell(row, ours)
        if value is not None and not isinstance(value, str):
            raise PersonaProbeError(f"{row.where}: {self.chosen[ours]!r} is {value!r}; it must be text")
        return value

    def _turns(self, row: Row) -> tuple[list[Message], Message | None]:
        """All turns before the answer, and the answer."""
        cells = by_known_names(row.cells, KNOWN)
        given = self._asked_in(row, cells)
        if not {"messages", *QUESTION} & {*given}:
            raise PersonaProbeError(
                f"{row.where}: holds no question; seen: {', '.join(row.cells)}. The output of a batch does not repeat "
                "the questions: give its input file (requests=...)"
            )
        turns = question_turns(given, row.where, self.notes).before
        column = self.chosen.get("answer", "answer")
        said = row.cells.get(column) if "answer" in self.chosen else None
        answered = [] if said is None else answer_turns(said, row.where, column, self.notes)
        if not turns and not answered:
            raise PersonaProbeError(f"{row.where}: its messages are empty")
        if answered and turns and turns[-1].get("role") == "assistant":
            if is_given(said) and [text_of(turns[-1])] != [text_of(turn) for turn in answered]:
                raise PersonaProbeError(f"{row.where}: its messages end with an answer, and the row has another one")
            answered = []
        fields = row.cells.get(ANSWER_FIELDS)
        if answered and isinstance(fields, str) and fields:
            answered[-1] |= json_value(fields, f"{row.where}: {ANSWER_FIELDS!r}")
        said_last = (answered or turns)[-1]
        for name, thought in self._thoughts(cells).items():
            if said_last.get("role") == "assistant" and not is_given(said_last.get(name)):
                said_last[name] = thought
        if turns and not answered and turns[-1].get("role") == "assistant" and turns[-1].get("content") is None:
            turns[-1]["content"] = ""
        try:
            messages = list(Dialogue.from_messages([*turns, *answered]).messages)
        except PersonaProbeError as error:
            raise PersonaProbeError(f"{row.where}: {error}") from error
        if answered and messages[-1].role != "assistant":
            raise PersonaProbeError(f"{row.where}: {column!r} ends with a turn of {messages[-1].role!r}, not an answer")
        answer = messages.pop() if messages[-1].role == "assistant" else None
        if not messages:
            raise PersonaProbeError(f"{row.where}: holds an answer, and no question before it")
        if answer is not None and not answer.content.strip() and not answer.further:
            answer = None  # the model said nothing, or the cell is blank: the scores cannot be of this answer
        return messages, answer

    def _thoughts(self, cells: Mapping[str, Any]) -> dict[str, str]:
        """The thought before the answer, where it has a column of its own."""
        taken = {name.strip().lower() for name in self.chosen.values()}
        return {
            name: cells[name]
            for name in THOUGHT
            if name not in taken and isinstance(cells.get(name), str) and cells[name]
        }

    def _asked_in(self, row: Row, cells: Mapping[str, Any]) -> dict[str, Any]:
        """The cells that hold what was asked, by the names of the common formats."""
        given: dict[str, Any] = {}
        for ours in ("messages", "prompt", "system"):
            if (value := self._cell(row, ours)) is None:
                continue
            theirs = self.chosen[ours].strip().lower()
            given[theirs if ours == "prompt" and theirs in QUESTION else ours] = value
        taken = {name.strip().lower() for name in self.chosen.values()}
        for name in ("history", *SYSTEM, *QUESTION, *PARTS):
            # Where the user says which column is the question, other columns are not.
            of_question = name in (*QUESTION, *PARTS)
            if name in taken or not is_given(cells.get(name)) or ("prompt" in self.given and of_question):
                continue
            given[name] = cells[name]
        for name in NOT_LABELS:
            if is_given(cells.get(name)) and cells[name] not in ("[]", "{}"):
                self.notes.add(f"{name!r} is a part of what was asked that is in no turn: a model asked again lacks it")
        return given

    def _others(self, row: Row, ours: set[str], failed: bool) -> dict[str, Any]:
        """The file's columns that are not ours."""
        others: dict[str, Any] = {}
        for name, value in row.cells.items():
            if name in self.chosen.values() or name == ANSWER_FIELDS:
                continue
            if name == "failed":
                if is_given(value) and str(value).lower() not in (str(failed).lower(), str(int(failed))):
                    self.replaced.add(name)
            elif name in ours:
                if is_given(value):
                    self.replaced.add(name)
            elif name == "labels" and isinstance(value, dict):
                others |= {label: _flat(part) for label, part in value.items() if label not in {*ours, *row.cells}}
                self.replaced |= {f"labels.{label}" for label in value if label in {*ours, *row.cells}}
            else:
                others[name] = _flat(value)
        return others

    def _score(self, row: Row, ours: str) -> GivenScore:
        column = self.chosen.get(ours, ours)
        score = given_score(row.cells.get(column), row.where, column)
        if score.unread is not None:
            self.no_scores.append(f"{column!r} is {score.unread[:40]!r} ({row.where})")
        return score

    def _truth(self, row: Row, ours: str) -> bool:
        value = self._cell(row, ours)
        if value is None or str(value).lower() in ("false", "no", "0", "0.0"):
            return False
        if str(value).lower() in ("true", "yes", "1", "1.0"):
            return True
        raise PersonaProbeError(f"{row.where}: {self.chosen[ours]!r} is {str(value)[:40]!r}; it must be true or false")

    def _whole(self, row: Row, ours: str) -> int | None:
        value = self._cell(row, ours)
        return None if value is None else whole_number(value, row.where, self.chosen[ours])


def _flat(value: Any) -> Any:
    """A cell of a table: lists and objects as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
