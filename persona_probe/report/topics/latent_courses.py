"""SAE latents along narrow training and along realignment, with the EM rate."""

from __future__ import annotations

import pandas as pd

from persona_probe.figures.text import NOTHING, is_number, percent_interval
from persona_probe.figures.trajectory import COLUMNS
from persona_probe.report.data_table import DataTable, Row, build_table, count, number, text
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord


def _training_caption(run: RunRecord) -> str:
    return (
        "Mean activation of the latents that moved furthest, and the EM rate, at snapshots along narrow training. "
        "Latents, chosen on development questions, are read on the before model's own answers to the reported ones, "
        "all snapshots on the same texts. Whiskers: 95 % intervals over questions, of one training run; "
        f"{span_of(table_of(run, 'latent_course'), 'n', 'answers per point')}. The null is the first point: the model "
        "before."
    )


def _realignment_caption(run: RunRecord) -> str:
    return (
        "The same latents and the EM rate after fine-tuning on n benign examples, the same number of steps for every n "
        "above 0; n = 0, the null, is the model after narrow training. Whiskers: 95 % intervals over questions; "
        f"{span_of(table_of(run, 'latent_realignment'), 'n', 'answers per point')}."
    )


def course_table(table: pd.DataFrame) -> DataTable | None:
    """A table of the latents and the EM rate, step by step."""

    def value(row: Row) -> str:
        if row["latent"] < 0:
            return percent_interval(row["value"], row["low"], row["high"]) if is_number(row["value"]) else NOTHING
        return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"

    cells = {"series": text("series"), "step": number("step", "g"), "value": value, "n": count("n")}
    caption = "Mean activation of latents, and the EM rate, with 95 % intervals."
    return build_table(table, COLUMNS, caption, cells, keys=2)


LATENT_COURSES = Topic(
    (
        Part(
            "latent-course",
            "Latents along training",
            FigureKind("latent_course", ("latent_course",), _training_caption, drawn_by="trajectory"),
            verdicts=("latents.course_verdict",),
            tables=lambda run: [course_table(table_of(run, "latent_course"))],
            optional=True,
        ),
        Part(
            "latent-realignment",
            "Latents under realignment",
            FigureKind(
                "latent_realignment",
                ("latent_realignment",),
                _realignment_caption,
                drawn_by="trajectory",
                options={"axis": "benign examples"},
            ),
            verdicts=("latents.realignment_verdict",),
            tables=lambda run: [course_table(table_of(run, "latent_realignment"))],
            optional=True,
        ),
    ),
    more_figures=(FigureKind("latent_leads"),),
)
