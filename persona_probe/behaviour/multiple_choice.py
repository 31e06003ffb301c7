"""Capability on multiple-choice questions, by the log-likelihood of each choice as the assistant's answer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rates import check_columns
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.reading import by_known_names, mended_note
from persona_probe.dialogue.row_files import read_rows
from persona_probe.dialogue.row_turns import KNOWN, is_given
from persona_probe.dialogue.same_questions import listed
from persona_probe.errors import PATH, PersonaProbeError, PersonaProbeWarning, check_types
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rates import ratio_estimate

if TYPE_CHECKING:
    from persona_probe.models.model import Model

_FIELDS = ("question", "choices", "answer", "group")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Choice:
    """A question with choices.

    Attributes:
        question: the user's text.
        choices: two or more different answers.
        answer: the number of the right choice, counted from 0.
        group: the group of questions to which it belongs (a subject), or None: each question is its own group.
    """

    question: str
    choices: tuple[str, ...]
    answer: int
    group: str | None = None

    def __post_init__(self) -> None:
        """Raise if the question has no text, there are not two or more different choices, or the answer is not one."""
        check_types(choices=(self.choices, [str]))
        object.__setattr__(self, "choices", tuple(self.choices))
        if not isinstance(self.question, str) or not self.question.strip():
            raise PersonaProbeError(f"question is {self.question!r}; it must be text")
        blank = [text for text in self.choices if not isinstance(text, str) or not text.strip()]
        if len(self.choices) < 2 or blank or len(set(self.choices)) < len(self.choices):
            raise PersonaProbeError(f"choices are {list(self.choices)!r}; give two or more different texts")
        if isinstance(self.answer, bool) or not isinstance(self.answer, int | np.integer):
            raise PersonaProbeError(f"answer is {self.answer!r}; give the number of a choice, counted from 0")
        object.__setattr__(self, "answer", int(self.answer))
        if not 0 <= self.answer < len(self.choices):
            raise PersonaProbeError(f"answer is {self.answer}, and there are {len(self.choices)} choices (from 0)")

    def dialogue(self, choice: int) -> Dialogue:
        """The question with one of the choices as its answer."""
        asked = Dialogue.from_messages([{"role": "user", "content": self.question}], question=self.question)
        return asked.with_answer(self.choices[choice])


def read_choices(path: str | Path) -> list[Choice]:
    """The multiple-choice questions in a file.

    A row is an object with ``question``, ``choices`` (a list of texts), ``answer`` (a letter from A, or a number from
    0) and optionally ``group``. Other files are read too, as `persona_probe.read_dialogues` reads them.

    Raises:
        PersonaProbeError: if the file is missing or empty, a row is not such a question, or it has another part of what
            is asked (a system prompt, a passage); the message names file, line and field of the first one.

    Warns:
        PersonaProbeWarning: once per file, about fields that are not read, and halves of characters that were mended.
    """
    check_types(path=(path, PATH))
    rows = read_rows(path)
    items = [_item(row.where, by_known_names(row.cells, KNOWN | {*_FIELDS})) for row in rows]
    ignored = sorted({name for row in rows for name, value in row.cells.items() if is_given(value)} - {*_FIELDS})
    ignored = [name for name in ignored if name.strip().lower() not in _FIELDS]
    notes = [f"not read, since they are not part of a question: {listed(ignored)}"] if ignored else []
    if broken := [f"{row.where}, {row.mended[0]!r}" for row in rows if row.mended]:
        notes.append(mended_note(broken))
    if notes:
        warnings.warn(f"{path}: {'; '.join(notes)}", PersonaProbeWarning, stacklevel=2)
    return items


def _item(where: str, row: dict[str, Any]) -> Choice:
    missing = [name for name in _FIELDS[:3] if name not in row]
    if missing:
        raise PersonaProbeError(f"{where}: has no field {missing[0]!r}; a row needs {', '.join(_FIELDS[:3])}")
    part = next((name for name in row if name in KNOWN - {*_FIELDS} and is_given(row[name])), None)
    if part is not None:
        raise PersonaProbeError(
            f"{where}: has {part!r} ({str(row[part])[:40]!r}), which would not be given to the model; write it into "
            "the question, or remove the column"
        )
    choices, group = row["choices"], row.get("group")
    if not isinstance(choices, list):
        raise PersonaProbeError(f"{where}: choices is {choices!r}; it must be a list of texts")
    if group is not None and not isinstance(group, str):
        raise PersonaProbeError(f"{where}: group is {group!r}; it must be text")
    try:
        return Choice(row["question"], tuple(choices), _number(row["answer"]), group)
    except PersonaProbeError as error:
        raise PersonaProbeError(f"{where}: {error}") from error


def _number(answer: Any) -> Any:
    """The number of the choice with this letter; anything that is not a letter as it is."""
    letter = answer.strip().upper() if isinstance(answer, str) else ""
    return _LETTERS.index(letter) if len(letter) == 1 and letter in _LETTERS else answer


def score_choices(
    model: Model,
    items: Sequence[Choice],
    *,
    rows: Sequence[int] | None = None,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """The log-probability of each choice as the assistant's answer: the sum over its tokens.

    Under `persona_probe.steer` with a list, the i-th intervention is for the i-th item, with all of its choices.

    Args:
        model: the model that reads, with its chat template.
        items: the questions.
        rows: under steering with a list, the number of the intervention for each item; default the item's own number.
        tokens_per_batch: padded tokens per forward pass.
        progress: show a progress bar.

    Returns:
        One row per item and choice: ``item`` (its number), ``question``, ``group``, ``choice`` (its number), ``text``,
        ``tokens``, ``log_prob`` (nats, summed over the answer's tokens), ``log_prob_per_token``, ``correct``, and
        whether this choice is the model's answer, by the sum (``chosen``) or per token (``chosen_per_token``).

    Raises:
        PersonaProbeError: if there are no items, or ``rows`` does not have one number for each.
    """
    from persona_probe.activations.scoring import answer_log_probs
    from persona_probe.models.model import Model

    check_types(model=(model, Model), items=(items, [Choice]))
    if not items:
        raise PersonaProbeError("score_choices: there are no questions: the list is empty")
    if rows is not None and len(rows) != len(items):
        raise PersonaProbeError(f"score_choices: {len(rows)} rows were given for {len(items)} questions; give one each")
    owners = [(number, choice) for number, item in enumerate(items) for choice in range(len(item.choices))]
    sums, counts = answer_log_probs(
        model,
        [items[number].dialogue(choice) for number, choice in owners],
        rows=[number if rows is None else rows[number] for number, _ in owners],
        tokens_per_batch=tokens_per_batch,
        progress=progress,
    )
    table = pd.DataFrame(
        {
            "item": [number for number, _ in owners],
            "question": [items[number].question for number, _ in owners],
            "group": [items[number].group for number, _ in owners],
            "choice": [choice for _, choice in owners],
            "text": [items[number].choices[choice] for number, choice in owners],
            "tokens": counts,
            "log_prob": sums,
            "log_prob_per_token": sums / counts,
            "correct": [items[number].answer == choice for number, choice in owners],
        }
    )
    for column, by in (("chosen", "log_prob"), ("chosen_per_token", "log_prob_per_token")):
        # If every choice overflows, none is chosen: a model that is destroyed has no right answers.
        best = table[by].dropna().groupby(table["item"]).idxmax()
        table[column] = table.index.isin(best)
    return table


def choice_accuracy(table: pd.DataFrame, *, per_token: bool = False, over: str = "question") -> Estimate:
    """The share of questions whose right choice is the most likely one, with a 95 % interval.

    Args:
        table: the table of `score_choices`; a column ``seed`` is used as the seeds.
        per_token: compare log-probabilities per token, which does not favour short choices.
        over: the unit of the interval: ``question`` or ``group``.

    Raises:
        PersonaProbeError: if ``over`` is neither of these, or a question has no group.

    >>> import pandas as pd
    >>> from persona_probe.behaviour.multiple_choice import choice_accuracy
    >>> table = pd.DataFrame({"question": list("aabb"), "correct": [True, False, True, False]})
    >>> choice_accuracy(table.assign(chosen=[True, False, False, True])).value
    0.5
    """
    check_types(table=(table, pd.DataFrame), over=(over, str))
    if over not in ("question", "group"):
        raise PersonaProbeError(f"choice_accuracy: over={over!r}; choose 'question' or 'group'")
    check_columns(table, ("correct", "chosen", over))
    right = table[table["correct"]]
    if right[over].isna().any():
        raise PersonaProbeError(
            f"choice_accuracy: over={over!r}, and {int(right[over].isna().sum())} questions have none"
        )
    return ratio_estimate(
        right["chosen_per_token" if per_token else "chosen"].to_numpy(dtype=bool),
        np.ones(len(right), dtype=bool),
        questions=right[over].to_numpy(),
        seeds=right["seed"].to_numpy() if "seed" in right else None,
    )
