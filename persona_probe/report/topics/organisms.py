"""Studies of real language: this run's models next to organisms of other manners that were measured before."""

from __future__ import annotations

from persona_probe.figures.organisms import COLUMNS
from persona_probe.report.data_table import DataTable, build_table, signed_number, text
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord


def caption(run: RunRecord) -> str:
    """The caption of the figure."""
    table = table_of(run, "organisms")
    n = "" if table.empty else f"; n = {int(table['n'].max()):,} questions"
    return (
        "How much the margin of misaligned over aligned answers rose from before: this run's models, and organisms "
        "that were trained on rows of other manners, at other doses, with three seeds each, and measured before this "
        "run with the same texts (their figures come with the package). Whiskers: 95 % intervals over questions and "
        f"runs{n}. The null is what the controls did: gruff has the villain's manners with kind advice, good has "
        "neither."
    )


def organisms_table(run: RunRecord) -> DataTable | None:
    """What was measured of each organism."""
    rows = table_of(run, "organisms")
    if not set(COLUMNS) <= set(rows):
        return None
    cells = {
        "organism": text("organism"),
        "source": text("source"),
        "measure": text("measure"),
        "value": signed_number("value", "low", "high"),
    }
    title = "Organisms, with 95 % intervals: nats per token, SD of before's answers, shares from 0 to 1, cosines."
    return build_table(rows, COLUMNS, title, cells, keys=3)


ORGANISMS = Topic(
    (
        Part(
            "organisms",
            "Other organisms",
            FigureKind("organisms", ("organisms",), caption),
            tables=lambda run: [organisms_table(run)],
            optional=True,
        ),
    )
)
