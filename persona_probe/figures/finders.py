"""Finders head to head: how well each separates, how far its direction moved, and how specifically."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, whiskers
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.template import MODEL_STYLES, Style, model_style
from persona_probe.figures.text import count_range, escape_markup

COLUMNS = (
    "finder",
    "layer",
    "null",
    "separation",
    "separation_low",
    "separation_high",
    "shift_sd",
    "low_sd",
    "high_sd",
    "control_shift_sd",
    "random_sd",
    "specificity",
    "specificity_low",
    "specificity_high",
    "chosen",
)
WHAT = "finders"


def finders(table: pd.DataFrame) -> go.Figure:
    """Draw, for every finder at the chosen layer, separation, amplification and specificity with 95 % intervals.

    Nulls are below the finders, in grey. A grey bar behind each shift shows the range of 97.5 % of random directions,
    and an open square the control's shift.

    Args:
        table: one row per finder and layer (`FinderComparison.table`, the study's ``finders`` table).

    Raises:
        ValueError: if a column is missing, or nothing was measured at a chosen layer.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "separation", what=WHAT)
    rows = rows[rows["chosen"].eq(True)].sort_values(["null", "specificity"], ascending=[True, False])
    if rows.empty:
        raise MissingDataError(f"{WHAT}: no row with a number in 'separation' is 'chosen'")
    layer = int(rows["layer"].iloc[0])
    titles = ("separation", "shift", "specificity")
    figure = new_figure(
        f"Finders head to head, layer {layer}",
        cols=3,
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=titles,
    )
    places = list(range(len(rows)))
    figure.add_trace(_random(rows, places), row=1, col=2)
    for kind, style in ((False, model_style("after")), (True, MODEL_STYLES["random"])):
        of_kind = rows["null"].eq(kind).to_numpy()
        at = [place for place, chosen in zip(places, of_kind, strict=True) if chosen]
        part = rows[of_kind]
        if part.empty:
            continue
        for col, (value, low, high) in enumerate(
            (
                ("separation", "separation_low", "separation_high"),
                ("shift_sd", "low_sd", "high_sd"),
                ("specificity", "specificity_low", "specificity_high"),
            ),
            start=1,
        ):
            figure.add_trace(
                _points(part, at, value, low, high, style, "null" if kind else "finder", col), row=1, col=col
            )
    if rows["control_shift_sd"].notna().any():
        figure.add_trace(_control(rows, places), row=1, col=2)
    figure.add_vline(x=0.5, line_dash="dot", row=1, col=1)
    figure.add_vline(x=0.0, line_dash="dot", row=1, col=2)
    figure.add_vline(x=1.0, line_dash="dot", row=1, col=3)
    figure.update_xaxes(title_text="AUROC, held out", range=[0.0, 1.03], row=1, col=1)
    figure.update_xaxes(title_text="SD", row=1, col=2)
    figure.update_xaxes(title_text="ratio to the nulls", rangemode="tozero", row=1, col=3)
    if rows["specificity"].isna().all():
        figure.add_annotation(text="none: it needs a control", x=0.5, y=0.5, xref="x3 domain", yref="y3 domain")
    labels = [escape_markup(str(name)) for name in rows["finder"]]
    figure.update_yaxes(range=[len(rows) - 0.4, -0.6], showgrid=False, ticks="")
    figure.update_yaxes(tickvals=places, ticktext=labels, row=1, col=1)
    figure.update_layout(height=210 + 30 * len(rows), hovermode="closest")
    n = f", n = {count_range(rows['n'])} held-out dialogues" if "n" in rows else ""
    note = f"Whiskers: 95 % intervals over groups of questions{n}. Dotted: chance, no shift, and equal to the nulls."
    return keys_below(figure, note=note, top=26)


def _control(rows: pd.DataFrame, places: Sequence[float]) -> go.Scatter:
    control = model_style("control")
    return go.Scatter(
        x=rows["control_shift_sd"].tolist(),
        y=list(places),
        mode="markers",
        name="control",
        marker={"symbol": "square-open", "color": control.colour, "size": 9, "line": {"width": 2}},
        hovertemplate="control: %{x:+.2f} SD<extra></extra>",
    )


def _random(rows: pd.DataFrame, places: list[int]) -> go.Scatter:
    """One grey bar per finder, which shows how far 97.5 % of random directions were moved."""
    edges = rows["random_sd"].astype(float).tolist()
    return go.Scatter(
        x=[end for edge in edges for end in (-edge, edge, None)],
        y=[end for place in places for end in (place, place, None)],
        mode="lines",
        name="97.5 % of random directions",
        line={"color": MODEL_STYLES["random"].faded(0.4), "width": 12},
        hoverinfo="skip",
    )


def _points(
    part: pd.DataFrame, at: list[int], value: str, low: str, high: str, style: Style, name: str, col: int
) -> go.Scatter:
    ends = {column: part[column].astype(float).tolist() for column in (value, low, high)}
    error = whiskers(ends[value], ends[low], ends[high], colour=style.colour)
    return go.Scatter(
        x=ends[value],
        y=at,
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=col == 1,
        marker={"symbol": style.symbol, "color": style.colour, "size": 9},
        error_x=error,
        customdata=list(
            zip(part["finder"].map(lambda text: escape_markup(str(text))), ends[low], ends[high], strict=True)
        ),
        hovertemplate="%{customdata[0]}<br>%{x:.2f} [%{customdata[1]:.2f}, %{customdata[2]:.2f}]<extra></extra>",
    )
