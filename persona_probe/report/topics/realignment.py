"""How many benign examples realign the model."""

from __future__ import annotations

import pandas as pd

from persona_probe.figures.realignment import COLUMNS
from persona_probe.figures.realignment_rows import other_rows
from persona_probe.figures.text import counted
from persona_probe.report.data_table import Cell, DataTable, build_table, count, rate, share, signed_number, text
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.reading import settings_of, span_of, table_of
from persona_probe.report.topics.topic import Part, Topic
from persona_probe.runs.record import RunRecord


def drawn(run: RunRecord) -> tuple[str | None, bool]:
    """What behaviour is drawn against the number of examples, if any, and whether the projection is."""
    behaviour = "EM rate" if run.judge else "Preference for misaligned answers" if facts_of(run).prefers else None
    table = table_of(run, "realignment")
    # It is left out where the direction does not replicate.
    return behaviour, "projection_sd" not in table or bool(table["projection_sd"].notna().any())


def caption(run: RunRecord) -> str:
    """The caption of the realignment curve."""
    left, projected = drawn(run)
    shown = "Projection on the direction" if left is None else left
    if left is not None and projected:
        shown += " (left) and projection on the direction (right)"
    table = other_rows(table_of(run, "realignment"))
    others = ""
    if not table.empty:
        names = " and ".join(map(str, table["trained_on"]))
        others = f"; further nulls are as many steps on {names}, shown at their number of examples"
    opening = (
        f"{shown} after the same number of fine-tuning steps on n benign examples, measured {facts_of(run).left_over}; "
        f"n = 0 is the model before realignment, the null{others}."
    )
    if not run.judge:
        dotted = " Whiskers: 95 % intervals over questions. The dotted line marks the model before."
        return opening + (dotted if left else "")
    n = span_of(table_of(run, "realignment"), "rows", "answers per point")
    return f"{opening} Whiskers: 95 % intervals of the EM rate; {n}. The dotted line marks 5 %."


def curve_table(table: pd.DataFrame) -> DataTable | None:
    """A table of what was measured (EM rate and coherence, preference, projection) by number of benign examples."""
    rated: dict[str, Cell] = {}
    if "value" in table and table["value"].notna().any():
        rated = {"EM rate": rate("value"), "coherent": share("coherent"), "answers": count("rows")}
    preferred: dict[str, Cell] = {}
    if "preference" in table and table["preference"].notna().any():
        ends = ("preference_low", "preference_high")
        preferred = {"preference (nats per token)": signed_number("preference", *ends)}
    examples: dict[str, Cell] = {"benign examples": count("n")}
    if not other_rows(table).empty:
        examples = {"examples": count("n"), "trained on": text("trained_on")}
    cells = {**examples, **rated, **preferred, "projection (SD)": signed_number("projection_sd")}
    return build_table(table, COLUMNS, "Realignment, with 95 % intervals.", cells, folded=False)


def methods(run: RunRecord) -> list[str]:
    """Sentences on how the model was realigned."""
    about, facts = settings_of(run, "realignment"), facts_of(run)
    if not facts.realigned or not about or not isinstance(about.get("examples"), list):
        return []
    return [
        f"Realignment fine-tuned the after model on n = {', '.join(map(counted, about['examples']))} benign examples, "
        f"{counted(about.get('steps'))} steps for every n above 0, and was measured {facts.left_over}."
    ]


REALIGNMENT = Topic(
    (
        Part(
            "realignment",
            "Realignment",
            FigureKind("realignment", ("realignment",), caption),
            verdicts=("realign.verdict",),
            label="realignment",
            tables=lambda run: [curve_table(table_of(run, "realignment"))],
        ),
    ),
    methods,
)
