"""The finders compared: how well their directions separate, how far the models moved along them, how they agree."""

from __future__ import annotations

import pandas as pd

from persona_probe.figures.finders import COLUMNS
from persona_probe.report.data_table import (
    ISOTROPIC,
    DataTable,
    build_table,
    layer_and_choice,
    number,
    signed_number,
    text,
    where_measured,
)
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import chosen_layer, compared_layer, span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord


def _finders_caption(run: RunRecord) -> str:
    facts = facts_of(run)
    control = " (squares: the control's)" if facts.control else ""
    lines = "chance, no shift, and a shift no larger than its nulls" if facts.control else "chance and no shift"
    ratio = "and specificity" if facts.control else "and no specificity, as there is no control"
    where = f"the layer chosen on development {facts.units}"
    if chosen_layer(run) is None and (layer := compared_layer(run)) is not None:
        where = f"layer {layer}, since the persona direction replicates at none"
    return (
        f"Every finder on the same development dialogues, scored on held-out {facts.units} at {where}: AUROC of the "
        f"projection ({span_of(table_of(run, 'finders'), 'n', 'dialogues')}), shift from before to after in standard "
        f"deviations{control}, {ratio}. Whiskers: 95 % intervals. "
        f"Nulls, grey: directions that find nothing by design. Dotted lines: {lines}."
    )


def _cosines_caption(run: RunRecord) -> str:
    table = table_of(run, "finder_cosines")
    finders = len({*table["first"], *table["second"]}) if {"first", "second"} <= set(table) else 0
    layer = compared_layer(run)
    where = "one layer" if layer is None else f"layer {layer}"
    return (
        f"Cosine between the directions of n = {finders} finders at {where} (one number per pair, so no interval). "
        "Null: 97.5 % of random directions with the activations' covariance have a smaller |cosine| than stated."
    )


def finders_table(table: pd.DataFrame) -> DataTable | None:
    """A table of every finder at every layer."""
    cells = {
        "finder": text("finder"),
        "layer": layer_and_choice,
        "AUROC, held out": number("separation", ".3f"),
        **where_measured(table, split_half_cosine="split-half cosine", held_out_auroc="AUROC on other halves"),
        "shift (SD)": signed_number("shift_sd", "low_sd", "high_sd"),
        "control (SD)": signed_number("control_shift_sd"),
        "random, 97.5 % (SD)": number("random_sd", ".2f"),
        **where_measured(table, isotropic_sd=ISOTROPIC),
        "specificity": number("specificity", ".1f"),
        "finding": text("finding"),
    }
    columns = (*COLUMNS, "finding")
    return build_table(table, columns, "Finders compared, with 95 % intervals.", cells, keys=2)


FINDERS = Topic(
    (
        Part(
            "finders",
            "Finders compared",
            FigureKind("finders", ("finders",), _finders_caption),
            verdicts=("finders.verdict",),
            label="finders",
            tables=lambda run: [finders_table(table_of(run, "finders"))],
        ),
        Part(
            "finder-cosines",
            "Do the finders agree?",
            FigureKind(
                "finder_cosines",
                ("finder_cosines",),
                _cosines_caption,
                drawn_by="cosine_matrix",
                settle=lambda run: {"layer": compared_layer(run)},
            ),
            optional=True,
        ),
    )
)
