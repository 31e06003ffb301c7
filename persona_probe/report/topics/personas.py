"""The personas that speak: their shares of answers."""

from __future__ import annotations

import pandas as pd

from persona_probe.figures.persona_shares import COLUMNS
from persona_probe.report.data_table import DataTable, build_table, count, rate, text
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord


def caption(run: RunRecord) -> str:
    """The caption of the persona shares."""
    return (
        f"Share of answers {facts_of(run).on_asked} that each persona gave. Whiskers: 95 % intervals over questions; "
        f"{span_of(table_of(run, 'persona_shares'), 'n', 'answers per model')}. "
        "The null is the before model's row of the same persona."
    )


def shares_table(table: pd.DataFrame) -> DataTable | None:
    """A table of the share of answers by model and persona."""
    cells = {"model": text("model"), "persona": text("persona"), "share": rate("share"), "n": count("n")}
    return build_table(table, COLUMNS, "Persona shares, with 95 % intervals.", cells, keys=2)


PERSONAS = Topic(
    (
        Part(
            "personas",
            "Which persona spread",
            FigureKind("persona_shares", ("persona_shares",), caption),
            verdicts=("personas.verdict",),
            label="who speaks",
            tables=lambda run: [shares_table(table_of(run, "persona_shares"))],
            rated=True,
        ),
    )
)
