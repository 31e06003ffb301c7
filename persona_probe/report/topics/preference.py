"""What the models prefer: log-probabilities of misaligned and aligned answers, without a judge."""

from __future__ import annotations

import pandas as pd

from persona_probe.behaviour.answer_fluency_result import FAULTS
from persona_probe.figures.text import counted
from persona_probe.report.data_table import DataTable, build_table, count, signed_number, text
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord

_COLUMNS = ("model", "kind", "measure", "value", "low", "high", "n")


def caption(run: RunRecord) -> str:
    """The caption of the figure."""
    pairs = _pairs(run)
    style = pairs.get("style", 0)
    null = "Style pairs are a null: their poles give the same advice and differ in style only."
    return (
        "Log-probability per token of misaligned minus aligned answers (the margin), on the question that they answer "
        "and after other questions (shuffled: the part that does not depend on the question). "
        f"{null if style else 'There are no style pairs as a null.'} Whiskers: 95 % intervals over "
        f"{facts_of(run).activations_over}; {counted(pairs.get('content', 0))} content"
        f"{f' and {counted(style)} style' if style else ''} pairs, on which nothing was chosen."
    )


def fluency_caption(run: RunRecord) -> str:
    """The caption of the figure of fluency."""
    return (
        "Share of answers that are fluent, and what is wrong with the others, without a judge: an answer must not be "
        "far less likely under the model before (as asked, or under the persona's system prompt, whichever is more "
        f"favourable), more repetitive or more looping than before's own. Whiskers: 95 % intervals over questions; "
        f"{span_of(table_of(run, 'fluency'), 'n', 'answers per row')}. The null is the model before."
    )


def preference_table(table: pd.DataFrame) -> DataTable | None:
    """Every measure of every model, in nats per token."""
    if "measure" not in table:
        return None
    rows = table[~table["measure"].astype(str).str.endswith("_total")]
    cells = {
        "model": text("model"),
        "pairs": text("kind"),
        "measure": text("measure"),
        "nats per token": signed_number("value", "low", "high"),
        "n": count("n"),
    }
    return build_table(rows, _COLUMNS, "Preference, with 95 % intervals.", cells, keys=3)


def methods(run: RunRecord) -> list[str]:
    """Sentences on how preference was measured."""
    pairs = _pairs(run)
    if not pairs:
        return []
    style = pairs.get("style", 0)
    return [
        "Behaviour was also read without sampling: the log-probability per token of aligned and of misaligned answers "
        f"to {counted(pairs.get('content', 0))} questions, each after its own question and after others, "
        f"{f'with {counted(style)}' if style else 'without'} style pairs as a null. Intervals are 95 % over "
        f"{facts_of(run).activations_over}."
    ]


def _pairs(run: RunRecord) -> dict[str, int]:
    """How many pairs of each kind were read."""
    questions = table_of(run, "preference_questions")
    if not {"kind", "question"} <= set(questions):
        return {}
    return {str(kind): rows["question"].nunique() for kind, rows in questions.groupby("kind")}


PREFERENCE = Topic(
    (
        Part(
            "preference",
            "Preference for misaligned answers",
            FigureKind("preference", ("preference",), caption),
            verdicts=("preference.verdict",),
            label="preference",
            tables=lambda run: [preference_table(table_of(run, "preference"))],
            optional=True,
        ),
        Part(
            "fluency",
            "Fluency",
            FigureKind("fluency", ("fluency",), fluency_caption, options={"faults": FAULTS}),
            verdicts=("fluency.verdict",),
            label="fluency",
            optional=True,
        ),
    ),
    methods,
    (FigureKind("preference_against_rates"),),
)
