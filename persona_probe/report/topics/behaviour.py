"""The behaviour of the models: EM rates by model and by topic or question, and all judged answers by their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from persona_probe.behaviour.answers import scatter_lines, scatter_tables
from persona_probe.behaviour.em_rates import DEFINITIONS
from persona_probe.behaviour.em_rates import em_rates as rates_of
from persona_probe.figures import em_rates as figure
from persona_probe.figures.text import NOTHING, count_range, counted, percent_interval
from persona_probe.report.data_table import DataTable, count, lacks, rate, records
from persona_probe.report.facts import Facts, facts_of
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import (
    definition_of,
    formula_of,
    number_of,
    read_number,
    settings_of,
    span_of,
    table_of,
)
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord

_NEEDS = ("model", "question", "aligned", "coherent", "refusal", "failed")
_FEW = 4
"""The least mean number of answers per question at which the rate of a single question is meaningful."""


def reported_rates(run: RunRecord, *, trained: bool = True) -> pd.DataFrame:
    """The rates that are drawn: those by the run's definition, with or without those on the trained topic."""
    table = table_of(run, "em_rates")
    if not {"definition", "questions"} <= set(table):
        return table
    rates = table[table["definition"] == definition_of(run)]
    return rates if trained else rates[rates["questions"] != "trained topic"]


def reported_answers(run: RunRecord) -> pd.DataFrame:
    """The judged answers to the reported questions: those on unseen topics, or all if the table names none."""
    table = table_of(run, "answers")
    if lacks(table, _NEEDS):
        return pd.DataFrame()
    asked = table["questions"] == figure.UNSEEN if "questions" in table else pd.Series(data=True, index=table.index)
    return table[asked] if asked.any() else table


def unit_of(run: RunRecord) -> str | None:
    """How rates are listed: by ``group`` (topics), by ``question``, or None if too few answers share a question."""
    rows = reported_answers(run)
    if rows.empty:
        return None
    if "group" in rows and len(set(rows["group"].dropna())) > 1:
        return "group"
    return "question" if len(rows) / rows.groupby(["model", "question"]).ngroups >= _FEW else None


def rates_by_unit(run: RunRecord) -> pd.DataFrame:
    """The rates with one row per topic (or question), model and definition; empty if the answers allow none.

    The column is called ``topic`` or ``question``.
    """
    unit = unit_of(run)
    if unit is None:
        return pd.DataFrame()
    rows = reported_answers(run)
    return rates_of(rows[rows[unit].notna()], ["model", unit]).to_frame().rename(columns={"group": "topic"})


def _unit_name(run: RunRecord) -> str:
    return "topic" if unit_of(run) == "group" else "question"


def _rates_caption(run: RunRecord) -> str:
    facts = facts_of(run)
    n, name = span_of(reported_rates(run), "n", "judged answers per row"), definition_of(run)
    filled = f"; filled: {facts.on_asked.removeprefix('on ')}" if facts.opened else ""
    return (
        f"Share of misaligned answers (definition: {name}, {formula_of(name)}) by model and question set{filled}. "
        f"Whiskers: 95 % intervals over questions; {n}. {_fine_tuned_null(facts)}"
    )


def _by_unit_caption(run: RunRecord) -> str:
    name, facts, unit = definition_of(run), facts_of(run), _unit_name(run)
    over = "questions" if unit == "topic" else "answers"
    rates = rates_by_unit(run)
    if rates.empty:
        return ""
    n = f"n = {count_range(rates.loc[rates['definition'] == name, 'n'])} judged answers per row"
    return (
        f"EM rate (definition: {name}, {formula_of(name)}) of each model by {unit}, {facts.on_asked}; "
        f"the highest rates first. Whiskers: 95 % intervals over {over}; {n}. {_fine_tuned_null(facts)}"
    )


def _scatter_caption(run: RunRecord) -> str:
    name, rows, facts = definition_of(run), reported_answers(run), facts_of(run)
    return (
        f"Every judged answer {facts.on_asked} (n = {counted(len(rows))} in all) by its two scores; "
        f"equal scores are one mark, whose area is their number. Dashed: the lines of the definition {name}, "
        f"{formula_of(name)}. Shares of each quadrant with 95 % intervals over questions. {_fine_tuned_null(facts)}"
    )


def _fine_tuned_null(facts: Facts) -> str:
    """A sentence on what the numbers of a fine-tune are compared with."""
    if not facts.control:
        return (
            "The null is the model before; there is no control, so this cannot be distinguished from what any "
            "fine-tuning does."
        )
    how = " (the same fine-tuning on harmless answers)" if facts.trained and facts.control_given is None else ""
    return f"Nulls: the model before and the benign control{how}."


def rates_table(table: pd.DataFrame, *, asked: str = figure.UNSEEN) -> DataTable | None:
    """A table of the rate by each definition, for each model and question set.

    Args:
        table: the study's ``em_rates`` table.
        asked: the name for the questions that the table calls "unseen topics".
    """
    if lacks(table, figure.COLUMNS):
        return None
    definitions = [str(name) for name in table["definition"].dropna().unique()]
    rows = []
    for model in figure.MODELS:
        for questions in figure.QUESTIONS:
            of_both = records(table[(table["model"] == model) & (table["questions"] == questions)])
            if not of_both:
                continue
            by_name = {str(row["definition"]): row for row in of_both}
            rates = [
                f"{rate('value')(by_name[name])}, n = {count('n')(by_name[name])}" if name in by_name else NOTHING
                for name in definitions
            ]
            counts = [count(name)(of_both[0]) for name in ("refusals", "failures")]
            rows.append([model, figure.called(questions, asked), *rates, *counts])
    caption = "EM rate by named definition, with 95 % intervals; failures are answers that the judge could not score."
    columns = ["model", "questions", *definitions, "refusals", "failures"]
    return DataTable(caption, columns, rows, keys=2, folded=False)


def methods(run: RunRecord) -> list[str]:
    """Sentences on sampling, judging and rates."""
    facts = facts_of(run)
    sentences = _sampling(settings_of(run, "sampling"), facts)
    if run.judge is None:
        return [*sentences, f"{facts.unjudged}, so no EM rate is reported."] if sentences else []
    name = definition_of(run)
    sentences += [
        _judging(facts),
        f"EM rates follow the definition {name}, {formula_of(name)} ({DEFINITIONS[name].source}). Answers that the "
        f"judge could not score{_failures(run, name)} count as failures and are never aligned. Intervals are 95 % over "
        "questions (Wilson's, with an effective number of answers).",
    ]
    rates = []
    for model in figure.MODELS:
        value, low, high, n = (
            read_number(run.results, "em_rate", model, part) for part in ("value", "low", "high", "n")
        )
        if value is not None:
            rates.append(f"{model} {percent_interval(value, low, high)} (n = {counted(n)})")
    return [*sentences, f"EM rates {facts.on_asked}: {', '.join(rates)}."] if rates else sentences


def _sampling(about: Mapping[str, Any], facts: Facts) -> list[str]:
    if not about:
        return []
    answers, development = counted(about.get("reported")), counted(about.get("development"))
    how = (
        f"at temperature {number_of(about.get('temperature'))}, with at most {counted(about.get('max_new_tokens'))} "
        "new tokens"
    )
    if facts.topic is None:
        return [
            f"Each model gave {answers} answers to the study's own questions, {how}; {development} answers to other "
            "questions were used to choose layers and settings."
        ]
    where = "that were not in fine-tuning" if facts.trained else f"other than {facts.topic}"
    opened = f" and {counted(about.get('open'))} open ones" if facts.opened else ""
    return [
        f"Each model answered up to {answers} questions on topics {where}{opened}, {how}; {development} other "
        "questions were used to choose layers and settings."
    ]


def _judging(facts: Facts) -> str:
    if facts.oracle:
        return "Answers were scored by Persona World's oracle, which reads them word by word and uses no model."
    if facts.judge_model is None:
        return f"Answers were scored by the judge {facts.judge}."
    prompts = "the package's own prompts" if facts.judge_prompts is None else f"the prompts of {facts.judge_prompts}"
    return (
        f"Answers were scored by {facts.judge}, a local language model ({facts.judge_model}) under {prompts}: a score "
        "is the expected value of the numbers 0 to 100 under the model's probabilities, without sampling."
    )


def _failures(run: RunRecord, definition: str) -> str:
    table = table_of(run, "em_rates")
    if not {"definition", "failures"} <= set(table):
        return ""
    failures = table.loc[table["definition"] == definition, "failures"].sum()
    return f" ({counted(failures)} of those in the table of rates)"


BEHAVIOUR = Topic(
    (
        Part(
            "em-rates",
            "EM rate before and after",
            FigureKind(
                "em_rates",
                ("em_rates",),
                _rates_caption,
                settle=lambda run: {"definition": definition_of(run), "asked": facts_of(run).asked},
            ),
            verdicts=("behaviour.verdict",),
            label="EM rate",
            tables=lambda run: [rates_table(table_of(run, "em_rates"), asked=facts_of(run).asked)],
            rated=True,
        ),
        Part(
            "em-by-question",
            lambda run: f"EM rate by {_unit_name(run)}",
            FigureKind(
                "em_by_question",
                ("answers",),
                _by_unit_caption,
                settle=lambda run: {"definition": definition_of(run), "unit": _unit_name(run)},
                derive=lambda run: {"em_by_question": rates_by_unit(run)},
            ),
            rated=True,
            optional=True,
        ),
        Part(
            "answers-scatter",
            "Aligned and coherent scores",
            FigureKind(
                "answers_scatter",
                ("answers",),
                _scatter_caption,
                settle=lambda run: {"definition": definition_of(run), **scatter_lines(definition_of(run))},
                derive=lambda run: scatter_tables(reported_answers(run), definition_of(run)),
            ),
            rated=True,
            optional=True,
        ),
    ),
    methods,
    tuple(map(FigureKind, ("answer_scores", "server_check", "judge_agreement", "corrected_rates"))),
)
