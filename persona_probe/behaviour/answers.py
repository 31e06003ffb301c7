"""Answers, judged or not: one table, whoever wrote them."""

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
    coherent_rates,
    em_rates,
    quadrant_shares,
    scored,
)
from persona_probe.behaviour.em_rates_result import SETTINGS, EmRates, series_names
from persona_probe.behaviour.judges.judge import Judge, judge_answers
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

IDENTITY = ("id", "question", "group", "seed", "prompt", "answer")
VERDICT = ("aligned", "coherent", "refusal", "failed")


@dataclass(frozen=True)
class Answers(TableResult):
    """Answers to questions, with what a judge said of them.

    A study's ``answers`` table is wrapped as it is: ``Answers(run.tables["answers"])``.

    Attributes:
        table: one row an answer, with the columns that `persona_probe.judge_answers` makes: ``id``, ``question`` (what
            intervals are over), ``group``, ``seed``, ``prompt``, ``answer``, ``aligned``, ``coherent`` (0-100 or NaN),
            ``refusal``, ``failed``; ``messages`` (JSON, all before the answer) where there is more than a user turn;
            and any others, such as ``model``. An answer that is missing has no text and counts as failed.
        source: the file they were read from, if any.
        columns: which column of the file each of ours was read from.
        remarks: what a reader should know about the reading, in sentences.

    Raises:
        PersonaProbeError: if the table has no rows or lacks one of these columns.

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
        """Refuse a table that no rate can be computed from."""
        missing = [name for name in (*IDENTITY, *VERDICT) if name not in self.table]
        if missing:
            raise PersonaProbeError(
                f"answers: the table has no column {', '.join(map(repr, missing))}; it has "
                f"{', '.join(map(str, self.table.columns))}. Read files that others wrote with pp.read_answers"
            )
        if self.table.empty:
            raise PersonaProbeError("answers: the table has no rows; give at least one answer")
        # Parquet gives a column without any value (nothing was judged) back as objects.
        kinds = {"aligned": float, "coherent": float, "refusal": bool, "failed": bool}
        object.__setattr__(self, "table", self.table.astype(kinds))

    def shown(self) -> pd.DataFrame:
        """The columns that say most."""
        names = ("model", "question", "prompt", "answer", *VERDICT)
        rows = self.table[[name for name in names if name in self.table]]
        return rows.assign(**{name: rows[name].map(_shortened) for name in ("question", "prompt", "answer")})

    def plot(self, definition: str = "betley") -> go.Figure:
        """Aligned against coherent, by model and intervention, with the definition's lines and quadrant shares.

        Raises:
            PersonaProbeError: if no answer has both scores, there are more than four panels, or the definition is
                unknown.
        """
        from persona_probe.figures.answers_scatter import answers_scatter

        tables = scatter_tables(self.table, definition)
        return answers_scatter(*tables.values(), definition=definition, **scatter_lines(definition))

    def headline(self) -> str:
        """How many answers to how many questions, the EM rates, and how the file was read."""
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
            by: columns of the table to group by; default ``model``, ``intervention`` and ``questions``, those of them
                that it has. With ``question`` among them, intervals are over the answers to each question.
            definition: which EM rate; default all of them.

        Raises:
            PersonaProbeError: if the table has no such column, or for an unknown definition.
        """
        return em_rates(self.table, self._by(by), definition)

    def coherence(self, by: str | Sequence[str] | None = None) -> pd.DataFrame:
        """One row per group: the share of its answers that are coherent (a score of 50 or more), with its interval.

        Args:
            by: as of `rates`.

        Returns:
            The columns of ``by``, then ``value``, ``low`` and ``high`` (95 %, over questions and seeds), ``n`` (answers
            with a score), ``method`` and ``level``.

        Raises:
            PersonaProbeError: if the table has no such column.
        """
        return coherent_rates(self.table, self._by(by))

    def _by(self, by: str | Sequence[str] | None) -> str | Sequence[str]:
        return [name for name in SETTINGS if name in self.table] if by is None else by

    def dialogues(self) -> list[Dialogue]:
        """The answers as dialogues, with what was said before them; rows without an answer are left out.

        Raises:
            PersonaProbeError: naming the first row whose ``messages`` are no dialogue.
        """
        return [_dialogue(row) for row in self._answered().to_dict("records")]

    def judged_by(self, judge: Judge) -> Answers:
        """The same answers with this judge's scores instead; missing answers stay failed."""
        answered = self._answered()
        verdict = judge_answers(judge, self.dialogues()).set_axis(answered.index)
        verdict = verdict.drop(columns=[name for name in (*IDENTITY, "messages") if name in verdict])
        replaced = [name for name in self.table if name in verdict or str(name).endswith("_mass")]
        table = self.table.drop(columns=replaced).join(verdict)
        missing = ~table.index.isin(answered.index)
        table["failed"] = table["failed"].where(~missing, True).astype(bool)
        table["refusal"] = table["refusal"].where(~missing, False).astype(bool)
        columns = {ours: theirs for ours, theirs in self.columns.items() if ours not in VERDICT}
        return replace(self, table=table, columns=columns, remarks=(*self.remarks, f"Judged by {judge.name!r}"))

    def _answered(self) -> pd.DataFrame:
        rows = self.table.reset_index(drop=True) if not self.table.index.is_unique else self.table
        return rows[rows["answer"].map(lambda answer: isinstance(answer, str))]


def scatter_tables(table: pd.DataFrame, definition: str = "betley") -> dict[str, pd.DataFrame]:
    """What `persona_probe.figures.answers_scatter.answers_scatter` draws, in the order of its arguments.

    Args:
        table: judged answers; without a column ``model``, one model's; each intervention counts as a model of its own.
            An empty one gives empty tables.
        definition: of the EM rate.

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
    """How a definition's lines are drawn: its formula, and where it parts misaligned and incoherent answers."""
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
    )
    return dialogue.with_answer(row["answer"])


def _text(value: Any) -> str | None:
    return None if value is None or pd.isna(value) else str(value)


def _shortened(value: Any, longest: int = 160) -> Any:
    return f"{value[:longest]} …" if isinstance(value, str) and len(value) > longest else value
