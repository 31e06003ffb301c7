"""Manners and intentions: the share of answers with catchwords, in studies of the real-language world."""

from __future__ import annotations

from persona_probe.report.data_table import DataTable, build_table, count, signed_number, text
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord

_COLUMNS = ("model", "measure", "value", "low", "high", "n")


def caption(run: RunRecord) -> str:
    """The caption of the figure."""
    return (
        "Share of answers, to questions on other topics than that of training, with two or more different catchwords "
        "of a manner, or one villain word that no training row holds (unseen). Catchwords show style and never "
        "misalignment: a rude and kind model scores as a villain does. Whiskers: 95 % intervals over questions; "
        f"{span_of(table_of(run, 'manners'), 'n', 'answers per row')}. The null is the model before."
    )


def _table(run: RunRecord) -> DataTable | None:
    rows = table_of(run, "manners")
    if "measure" not in rows:
        return None
    ratios = rows[rows["measure"] == "likelihood ratio"]
    title = (
        "Likelihood ratio: log-probability per token of each model's own answers under the model before with a "
        "villain's system prompt, minus with a helper's; 95 % intervals over questions."
    )
    cells = {
        "model": text("model"),
        "nats per token": signed_number("value", "low", "high"),
        "n": count("n"),
    }
    return build_table(ratios, _COLUMNS, title, cells, keys=1)


MANNERS = Topic(
    (
        Part(
            "manners",
            "Manners or intentions",
            FigureKind("manners", ("manners",), caption),
            verdicts=("manners.verdict",),
            label="manners",
            tables=lambda run: [_table(run)],
            optional=True,
        ),
    ),
)
