"""The candidate directions, and how far they agree."""

from __future__ import annotations

import pandas as pd

from persona_probe.figures.cosines import COLUMNS
from persona_probe.report.data_table import DataTable, build_table, count, number, text
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord


def caption(run: RunRecord) -> str:
    """The caption of the cosines."""
    table = table_of(run, "direction_cosines")
    layers = table["layer"].nunique() if "layer" in table else 0
    return (
        f"Cosine between pairs of directions at each of n = {layers} layers (one number per pair and layer, so no "
        "interval). Null, grey: 97.5 % of random directions drawn with the activations' covariance have a smaller "
        "|cosine|; where pairs differ, the widest band is drawn."
    )


def cosine_rows(table: pd.DataFrame) -> DataTable | None:
    """A table of the cosine of each pair at each layer."""
    cells = {
        "first": text("first"),
        "second": text("second"),
        "layer": count("layer"),
        "cosine": number("cosine", "+.3f"),
        "random |cosine|, 97.5 %": number("null_high", ".3f"),
    }
    return build_table(table, COLUMNS, "Cosines between directions.", cells, keys=3)


DIRECTIONS = Topic(
    (
        Part(
            "directions",
            "Do the directions agree?",
            FigureKind("cosines", ("direction_cosines",), caption),
            verdicts=("direction.verdict",),
            label="directions",
            tables=lambda run: [cosine_rows(table_of(run, "direction_cosines"))],
        ),
    ),
    more_figures=tuple(
        map(FigureKind, ("cosine_matrix", "cross_ablation", "direction_card", "subspace", "tokens", "token_heatmap"))
    ),
)
