"""What each strength does: behaviour and its cost, compared with random directions at equal norm and at equal KL."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.template import MODEL_STYLES, Style
from persona_probe.figures.text import count_range, counted, is_number, percent_interval

WHAT = "dose-response"
CONDITIONS = {
    "direction": MODEL_STYLES["steered"],
    "random, equal norm": MODEL_STYLES["random"],
    "random, equal KL": MODEL_STYLES["before"],
}
"""The conditions that are drawn as curves; ``unsteered`` is a point at dose 0 of each."""


@dataclass(frozen=True)
class Panel:
    """One panel: the column that is drawn, the columns of its interval, and its title."""

    column: str
    low: str
    high: str
    title: str
    share: bool = True


PANELS = (
    Panel("em_rate", "em_low", "em_high", "EM rate"),
    Panel("coherent", "coherent_low", "coherent_high", "coherent answers"),
    Panel("kl", "kl_low", "kl_high", "KL to the unsteered model (nats per token)", share=False),
    Panel("accuracy", "accuracy_low", "accuracy_high", "multiple-choice accuracy"),
)
_INSTEAD = Panel("perplexity", "perplexity_low", "perplexity_high", "perplexity of unsteered answers", share=False)
"""Drawn where there is no multiple-choice set."""
COLUMNS = (
    "condition",
    "strength",
    "dose",
    "n",
    *(name for panel in PANELS[:3] for name in (panel.column, panel.low, panel.high)),
)


def dose_response(table: pd.DataFrame) -> go.Figure:
    """Draw EM rate, coherence, KL and capability against relative dose, with 95 % intervals.

    Capability is multiple-choice accuracy, or where there is none the perplexity of unsteered answers.

    Args:
        table: one row per condition and strength (`persona_probe.steering.dose_response`'s ``table``).

    Raises:
        ValueError: if a column is missing or empty, or there is no row of the direction.
    """
    rows = require(table, COLUMNS, what=WHAT)
    if not (rows["condition"] == "direction").any():
        raise MissingDataError(f"{WHAT}: the column 'condition' has no row 'direction'")
    panels = [*PANELS[:3], _capability(rows)]
    figure = new_figure(
        "Dose-response, compared with random directions",
        rows=2,
        cols=2,
        shared_xaxes=True,
        vertical_spacing=0.12,
        horizontal_spacing=0.12,
        subplot_titles=[panel.title for panel in panels],
    )
    for number, panel in enumerate(panels):
        cell = {"row": number // 2 + 1, "col": number % 2 + 1}
        for name, style in CONDITIONS.items():
            trace = _curve(rows, name, style, panel)
            if trace is not None:
                figure.add_trace(trace.update(showlegend=number == 0, legendgroup=name), **cell)
        if panel.share:
            figure.update_yaxes(**{**rate_axis(""), "title_text": None}, **cell)
        else:
            figure.update_yaxes(type="log", exponentformat="power", **cell)
    figure.update_xaxes(title_text="relative dose (change divided by stream)", row=2)
    counts, draws = count_range(rows["n"]), counted(rows["draws"].max()) if "draws" in rows else "several"
    note = (
        f"Whiskers: 95 % intervals over questions (for random directions also over draws). n = {counts} answers per "
        f"point; {draws} random directions. At dose 0: the unsteered model; random directions stand at the "
        "direction's dose."
    )
    return keys_below(figure.update_layout(height=720), note=note, top=26)


def _capability(rows: pd.DataFrame) -> Panel:
    for panel in (PANELS[3], _INSTEAD):
        if panel.column in rows and pd.to_numeric(rows[panel.column], errors="coerce").notna().any():
            return panel
    raise MissingDataError(f"{WHAT}: the columns 'accuracy' and 'perplexity' hold no number")


def _curve(rows: pd.DataFrame, name: str, style: Style, panel: Panel) -> go.Scatter | None:
    curve = rows[rows["condition"] == name]
    if curve.empty:
        return None
    # Every curve passes through the unsteered model.
    curve = pd.concat([curve, rows[rows["condition"] == "unsteered"]]).sort_values("dose")
    values = curve[panel.column].to_numpy(dtype=float)
    # A log axis has no place for 0, nor any axis for infinity.
    usable = np.isfinite(values) & (panel.share | (values > 0))
    curve = curve[usable]
    if curve.empty:
        return None
    value, low, high = (curve[column].astype(float).tolist() for column in (panel.column, panel.low, panel.high))
    if not panel.share:
        # The t interval of a mean near 0 may reach below it.
        low = [max(end, point / 100.0) if end == end else end for end, point in zip(low, value, strict=True)]
    return go.Scatter(
        x=curve["dose"].astype(float).tolist(),
        y=value,
        mode="lines+markers",
        name=name,
        line={"color": style.colour, "dash": style.dash, "width": 2.2},
        marker={"color": style.colour, "symbol": style.symbol, "size": 9},
        error_y=whiskers(value, low, high, colour=style.colour),
        hovertext=[_hover(name, row, panel) for row in curve.to_dict("records")],
        hoverinfo="text",
        cliponaxis=False,
    )


def _hover(name: str, row: dict[str, object], panel: Panel) -> str:
    value, low, high = (float(str(row[column])) for column in (panel.column, panel.low, panel.high))
    number = percent_interval(value, low, high) if panel.share else f"{value:.3g} [{low:.3g}, {high:.3g}]"
    own = row.get("own_strength")
    at = f", own strength {own:.3g}" if name == "random, equal KL" and is_number(own) else ""
    label = row["condition"] if row["condition"] == "unsteered" else name
    n = f", n = {counted(row['n'])}" if panel.column == "em_rate" else ""
    where = f"relative dose {float(str(row['dose'])):+.2g}, strength {float(str(row['strength'])):.3g}"
    return f"{label}<br>{where}{at}<br>{panel.title} {number}{n}"
