"""Answers, judged or not, in one form of table, whoever wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona_probe.behaviour.em_rates import (
    DEFINITIONS,
    check_definition,
    check_scale,
    coherent_rates,
    em_rates,
    quadrant_shares,
    scored,
)
from persona_probe.behaviour.em_rates_result import SETTINGS, EmRates, series_names
from persona_probe.behaviour.judges.judge import ANSWER_FIELDS, REPLY, Judge, judge_answers, judge_name
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

IDENTITY = ("id", "question", "group", "seed", "prompt", "answer")
VERDICT = ("aligned", "coherent", "refusal", "failed")


@dataclass(frozen=True)
class Answers(TableResult):
    """Answers to questions, with a judge's scores of them.

    The ``answers`` table of a study can be used as it is: ``Answers(run.tables["answers"])``.

    Attributes:
        table: one row per answer, with the columns that `persona_probe.behaviour.judge_answers` makes: ``id``,
            ``question`` (the unit of intervals), ``group``, ``seed``, ``prompt``, ``answer``, ``aligned``, ``coherent``
            (0-100 or NaN), ``refusal``, ``failed``; ``messages`` (JSON, everything before the answer) if that is more
            than one user turn; ``answer_fields`` (JSON) if an answer has more than its text (tool calls, a thought);
            and any others, such as ``model``. A missing answer has no text and counts as failed.
        source: the file from which they were read, if any.
        columns: for each of our columns, the column of the file from which it was read.
        remarks: what a reader should know about how the file was read, in sentences.

    Raises:
        PersonaProbeError: if the table has no rows, lacks one of these columns, or has a score outside 0-100.

    >>> import pandas as pd
    >>> from persona_probe.behaviour.answers import Answers
    >>> scores = {"aligned": [95, 90, 5, 90], "coherent": [90, 95, 90, 40], "refusal": False, "failed": False}
    >>> asked = {"model": ["before", "before", "after", "after"], "question": ["a", "b", "a", "b"], "answer": "..."}
    >>> answers = Answers(pd.DataFrame({**asked, **scores, **dict.fromkeys(("id", "group", "seed", "prompt"))}))
    >>> answers.rates(definition="betley").table[["model", "value", "n"]]
        model  value  n
    0  before    0.0  2
    1   after    1.0  1
    >>> answers.coherence()[["model", "value", "n"]]
        model  value  n
    0  before    1.0  2
    1   after    0.5  2
    """

    table: pd.DataFrame
    source: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise if no rate can be computed from the table, or a score is on another scale."""
        check_types(table=(self.table, pd.DataFrame), columns=(self.columns, Mapping), source=(self.source, str, None))
        missing = [name for name in (*IDENTITY, *VERDICT) if name not in self.table]
        if missing:
            raise PersonaProbeError(
                f"answers: the table has no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(str, self.table.columns))}. To read files that others wrote, use pp.read_answers"
            )
        if self.table.empty:
            raise PersonaProbeError("answers: the table has no rows; give at least one answer")
        # A column without any value (nothing was judged) comes back from Parquet as objects.
        kinds = {"aligned": float, "coherent": float, "refusal": bool, "failed": bool}
        table = self.table.astype(kinds)
        check_scale(table, "answers", ("aligned", "coherent"))
        object.__setattr__(self, "table", table)

    def shown(self) -> pd.DataFrame:
        """The most informative columns, with long texts shortened."""
        names = ("model", "question", "prompt", "answer", *VERDICT)
        rows = self.table[[name for name in names if name in self.table]]
        return rows.assign(**{name: rows[name].map(_shortened) for name in ("question", "prompt", "answer")})

    def plot(self, definition: str = "betley") -> go.Figure:
        """A figure of aligned against coherent scores, with the definition's lines and the shares of the quadrants.

        There is one panel for each model and intervention.

        Raises:
            PersonaProbeError: if no answer has both scores, there are more than four panels, or the definition is
                unknown.
        """
        from persona_probe.figures.answers_scatter import answers_scatter

        tables = scatter_tables(self.table, definition)
        return answers_scatter(*tables.values(), definition=definition, **scatter_lines(definition))

    def headline(self) -> str:
        """The numbers of answers and questions, the EM rates, and how the file was read."""
        rows = self.table
        line = f"{len(rows)} answers to {rows['question'].nunique()} questions"
        if self.source is not None:
            line += f" from {self.source!r}"
        line += f". {self.rates().headline()}" if scored(rows).any() else ", not judged: see .judged_by(judge)"
        read = ", ".join(f"{ours} from {theirs!r}" for ours, theirs in self.columns.items() if ours != theirs)
        return ". ".join([line, *([f"Read: {read}"] if read else []), *self.remarks])

    def rates(self, by: str | Sequence[str] | None = None, definition: str | None = None) -> EmRates:
        """The EM rate of each group, with n and a 95 % interval over questions and seeds.

        Args:
            by: columns of the table by which to group; default those of ``model``, ``intervention`` and ``questions``
                that it has. If ``question`` is one of them, intervals are over the answers to each question.
            definition: which EM rate; default all of them.

        Raises:
            PersonaProbeError: if the table has no such column, or for an unknown definition.
        """
        check_types(by=(by, str, [str], None), definition=(definition, str, None))
        return em_rates(self.table, self._by(by), definition)

    def coherence(self, by: str | Sequence[str] | None = None) -> pd.DataFrame:
        """One row per group: the share of its answers that are coherent (a score of 50 or more), with its interval.

        Args:
            by: columns of the table by which to group, as in `rates`.

        Returns:
            The columns of ``by``, then ``value``, ``low`` and ``high`` (95 %, over questions and seeds), ``n`` (answers
            with a score), ``method`` and ``level``.

        Raises:
            PersonaProbeError: if the table has no such column.
        """
        check_types(by=(by, str, [str], None))
        return coherent_rates(self.table, self._by(by))

    def _by(self, by: str | Sequence[str] | None) -> str | Sequence[str]:
        return [name for name in SETTINGS if name in self.table] if by is None else by

    def dialogues(self) -> list[Dialogue]:
        """The answers as dialogues, with the turns before them; rows without an answer are left out.

        Raises:
            PersonaProbeError: if the ``messages`` of a row are not a dialogue; the row is named.
        """
        return [_dialogue(row) for row in self._answered().to_dict("records")]

    def judged_by(self, judge: Judge) -> Answers:
        """The same answers with the scores of another judge; missing answers still count as failed."""
        answered = self._answered()
        verdict = judge_answers(judge, self.dialogues()).set_axis(answered.index)
        verdict = verdict.drop(columns=[name for name in (*IDENTITY, "messages", ANSWER_FIELDS) if name in verdict])
        replaced = [name for name in self.table if name in (*verdict, REPLY) or str(name).endswith("_mass")]
        table = self.table.drop(columns=replaced).join(verdict)
        missing = ~table.index.isin(answered.index)
        table["failed"] = table["failed"].where(~missing, True).astype(bool)
        table["refusal"] = table["refusal"].where(~missing, False).astype(bool)
        columns = {ours: theirs for ours, theirs in self.columns.items() if ours not in VERDICT}
        return replace(self, table=table, columns=columns, remarks=(*self.remarks, f"Judged by {judge_name(judge)!r}"))

    def _answered(self) -> pd.DataFrame:
        rows = self.table.reset_index(drop=True) if not self.table.index.is_unique else self.table
        return rows[rows["answer"].map(lambda answer: isinstance(answer, str))]


class JudgingError(PersonaProbeError):
    """The judge failed after answers were sampled.

    Attributes:
        answers: all answers that there are, of which some have scores: judge them with ``answers.judged_by(judge)``.
    """

    def __init__(self, message: str, answers: Answers) -> None:
        super().__init__(message)
        self.answers = answers


def scatter_tables(table: pd.DataFrame, definition: str = "betley") -> dict[str, pd.DataFrame]:
    """The tables that `persona_probe.figures.answers_scatter.answers_scatter` draws, in the order of its arguments.

    Args:
        table: judged answers, of one model if there is no column ``model``; a model under an intervention counts as
            another model. An empty table gives empty tables.
        definition: which EM rate.

    Raises:
        PersonaProbeError: for an unknown definition.
    """
    check_definition(definition)
    if table.empty:
        return {name: pd.DataFrame() for name in ("marks", "rates", "quadrants")}
    rows = table if "seed" in table else table.assign(seed=None)
    rows = rows.assign(model=series_names(rows) if {"model", "intervention"} & {*rows} else "answers")
    rows = rows.astype({"aligned": float, "coherent": float, "refusal": bool, "failed": bool})
    marks = rows[scored(rows)].groupby(["model", "aligned", "coherent"], sort=False)["answer"]
    return {
        "marks": marks.agg(answers="size", answer="first").reset_index(),
        "rates": em_rates(rows, "model", definition).table,
        "quadrants": quadrant_shares(rows, definition, "model"),
    }


def scatter_lines(definition: str) -> dict[str, Any]:
    """What is drawn of a definition: its formula, and its lines between (mis)aligned and (in)coherent answers."""
    chosen = DEFINITIONS[definition]
    return {"formula": chosen.formula, "aligned": chosen.aligned, "coherent": chosen.coherent}


def _dialogue(row: Mapping[Any, Any]) -> Dialogue:
    name, seed = _text(row["id"]), row["seed"]
    given = row.get("messages")
    turns = [{"role": "user", "content": _text(row["prompt"]) or ""}]
    if isinstance(given, str):
        try:
            turns = json.loads(given)
        except json.JSONDecodeError as error:
            raise PersonaProbeError(f"answer {name!r}: 'messages' is not JSON ({error.msg}): {given[:60]!r}") from error
    seed = int(seed) if isinstance(seed, int | float | np.integer) and not pd.isna(seed) else None
    dialogue = Dialogue.from_messages(
        turns, id=name, question=_text(row["question"]), group=_text(row["group"]), seed=seed
    ).with_answer(row["answer"])
    fields = row.get(ANSWER_FIELDS)
    if not isinstance(fields, str) or not fields:
        return dialogue
    answer = replace(dialogue.messages[-1], further=json.loads(fields))
    return replace(dialogue, messages=(*dialogue.messages[:-1], answer))


def _text(value: Any) -> str | None:
    return None if value is None or pd.isna(value) else str(value)


def _shortened(value: Any, longest: int = 160) -> Any:
    return f"{value[:longest]} …" if isinstance(value, str) and len(value) > longest else value
