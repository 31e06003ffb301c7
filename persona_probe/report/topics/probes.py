"""Linear probes: for misaligned against aligned answers, and for the same words under two system prompts."""

from __future__ import annotations

import pandas as pd

from persona_probe.figures.probe import COLUMNS
from persona_probe.figures.text import NOTHING, counted, is_number
from persona_probe.report.data_table import DataTable, Row, build_table, count, text
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import read_number, span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord


def _answers_caption(run: RunRecord) -> str:
    units = facts_of(run).units
    return (
        f"AUROC of a linear probe at each layer, trained and tested on different {units} "
        f"({span_of(table_of(run, 'probe'), 'n', 'answers')}). Bands: 95 % intervals over {units}. "
        "Nulls: the mean of the answers' token embeddings (what the words alone mean to the model: if it is as good as "
        "the probe, the probe may read no more than words), a bag of tokens (which words the answer contains), "
        "shuffled labels (band: the range of the shuffles), and chance at 0.5."
    )


def _same_words_caption(run: RunRecord) -> str:
    units = facts_of(run).units
    return (
        "AUROC of a linear probe for who the model thinks is speaking: the same answers, word for word, under the "
        f"trait's system prompt and under the default one, trained and tested on different {units} "
        f"({span_of(table_of(run, 'probe_same_words'), 'n', 'answers')}). Bands: 95 % intervals over {units}. Nulls: "
        "token embeddings and a bag of tokens, which are at chance by design because no word differs, and shuffled "
        "labels (band: the range of the shuffles)."
    )


def probe_table(table: pd.DataFrame) -> DataTable | None:
    """A table of the AUROC by layer and baseline."""

    def auroc(row: Row) -> str:
        interval = f" [{row['low']:.3f}, {row['high']:.3f}]" if is_number(row["low"]) and is_number(row["high"]) else ""
        return f"{row['auroc']:.3f}{interval}" if is_number(row["auroc"]) else NOTHING

    cells = {"baseline": text("baseline"), "layer": count("layer"), "AUROC": auroc}
    return build_table(table, COLUMNS, "AUROC on held-out data, with 95 % intervals.", cells, keys=2)


def methods(run: RunRecord) -> list[str]:
    """Sentences on how probes were trained and tested."""
    layer, n = read_number(run.results, "probe", "layer"), read_number(run.results, "probe", "n")
    if layer is None:
        return []
    over = "" if n is None else f" ({counted(n)} answers)"
    return [
        f"Linear probes (logistic, at every layer; layer {layer:.0f} is reported) were trained and tested on different "
        f"{facts_of(run).units}{over}, with scalers fitted inside the folds. Their nulls are token embeddings, a "
        "bag of tokens and shuffled labels."
    ]


PROBES = Topic(
    (
        Part(
            "probe",
            "Can a linear probe read it?",
            FigureKind("probe", ("probe",), _answers_caption),
            verdicts=("probe.verdict",),
            label="probe",
            tables=lambda run: [probe_table(table_of(run, "probe"))],
        ),
        Part(
            "same-words",
            "Does it read more than words?",
            FigureKind("probe_same_words", ("probe_same_words",), _same_words_caption, drawn_by="probe"),
            verdicts=("probe_same_words.verdict",),
            label="probe, same words",
            tables=lambda run: [probe_table(table_of(run, "probe_same_words"))],
        ),
    ),
    methods,
    (FigureKind("transfer"),),
)
