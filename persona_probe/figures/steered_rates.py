"""EM rate and coherence under some interventions, in rows, compared with the unsteered model and random directions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.rows import Mark, add_marks, label_rows
from persona_probe.figures.template import MODEL_STYLES
from persona_probe.figures.text import count_range, counted, escape_markup, is_number, percent_interval

COLUMNS = ("em_rate", "em_low", "em_high", "n", "coherent", "coherent_low", "coherent_high")
_PANELS = (
    ("EM rate", "em_rate", "em_low", "em_high"),
    ("coherent answers", "coherent", "coherent_low", "coherent_high"),
)
_KINDS = {"unsteered": MODEL_STYLES["before"], "steered": MODEL_STYLES["steered"], "random": MODEL_STYLES["random"]}


def at_budget(table: pd.DataFrame, *, budget: str) -> go.Figure:
    """Draw the EM rate and the coherence under each intervention at the same KL, compared with random directions.

    Args:
        table: one row per intervention (`persona_probe.steering.compare_at_budget`): ``name``, ``strength``, ``kl``,
            rates with their intervals, ``n`` and ``draws``.
        budget: the budget in words.

    Raises:
        ValueError: if a column is missing or empty, or no EM rate is a number.
    """
    what = "interventions at equal KL"
    rows = measured(require(table, ("name", "strength", "kl", "draws", *COLUMNS), what=what), "em_rate", what=what)
    records = rows.to_dict("records")
    kinds = [name if name in ("unsteered", "random") else "steered" for name in rows["name"]]
    labels = [f"random ({row['draws']:.0f} draws)" if row["name"] == "random" else row["name"] for row in records]
    hovers = [
        f"{escape_markup(row['name'])}<br>strength {row['strength']:.3g}, KL {row['kl']:.3g} nats" for row in records
    ]
    figure = _drawn("Interventions at equal KL", records, kinds, labels, hovers)
    left = table.loc[~table.index.isin(rows.index), "name"]
    missing = f" Not drawn, since no strength meets the budget: {escape_markup(', '.join(left))}." if len(left) else ""
    note = (
        f"Whiskers: 95 % intervals over questions (for random directions also over draws); "
        f"n = {count_range(rows['n'])} answers. Budget: {escape_markup(budget)}. Dotted: unsteered.{missing}"
    )
    return keys_below(figure, note=note, top=26)


def latent_sets(table: pd.DataFrame) -> go.Figure:
    """Draw the EM rate and the coherence with a set of latents steered, compared with random sets that match it.

    Args:
        table: one row per condition (`persona_probe.latents.steer_set`): ``intervention``, ``draw``, ``latents``,
            rates with their intervals and ``n``.

    Raises:
        ValueError: if a column is missing or empty, or no EM rate is a number.
    """
    what = "latent sets"
    rows = measured(require(table, ("intervention", "draw", *COLUMNS), what=what), "em_rate", what=what)
    records = rows.to_dict("records")
    kinds = [name if name == "unsteered" else "steered" if name == "set" else "random" for name in rows["intervention"]]
    labels = [_set_label(row) for row in records]
    figure = _drawn("A set of latents, steered", records, kinds, labels, [escape_markup(label) for label in labels])
    note = (
        f"Whiskers: 95 % intervals over questions; n = {count_range(rows['n'])} answers. Null, grey: random latents, "
        "matched one by one and steered in the same way. Dotted: unsteered."
    )
    return keys_below(figure, note=note, top=26)


def _set_label(row: Mapping[Hashable, Any]) -> str:
    latents = row.get("latents")
    count = f" ({len(latents)} latents)" if row["intervention"] == "set" and latents is not None else ""
    return f"matched set {row['draw'] + 1:.0f}" if is_number(row["draw"]) else f"{row['intervention']}{count}"


def _drawn(
    title: str, records: list[dict[Hashable, Any]], kinds: list[str], labels: list[str], hovers: list[str]
) -> go.Figure:
    figure = new_figure(
        title, cols=2, shared_yaxes=True, horizontal_spacing=0.05, subplot_titles=[panel[0] for panel in _PANELS]
    )
    for col, (name, value, low, high) in enumerate(_PANELS, start=1):
        for kind, style in _KINDS.items():
            marks = []
            for place, row in enumerate(records):
                if kinds[place] == kind and is_number(row[value]):
                    middle, *ends = (float(row[column]) for column in (value, low, high))
                    rate = f"{name} {percent_interval(middle, *ends)}, n = {counted(row['n'])}"
                    marks.append(Mark(place, middle, ends[0], ends[1], f"{hovers[place]}<br>{rate}"))
            add_marks(figure, marks, kind, style, col=col)
            if kind == "unsteered" and marks:
                figure.add_vline(x=marks[0].value, line_dash="dot", row=1, col=col)
        figure.update_xaxes(**{**rate_axis(""), "title_text": None}, row=1, col=col)
    label_rows(figure, labels)
    return figure
