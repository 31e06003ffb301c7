"""SAE latents: which moved, whether the control moved them as far, and what they do to behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, whiskers
from persona_probe.figures.highlighting import shown_activation
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.template import MODEL_STYLES, Style, model_style
from persona_probe.figures.text import NOTHING, count_range, counted, escape_markup, is_number, signed

COLUMNS = ("latent", "before", "after", "change_sd", "low_sd", "high_sd", "control_sd", "finding")
EFFECT_COLUMNS = ("latent", "effect", "effect_low", "effect_high", "null_effect", "null_low", "null_high")
STYLES = {
    "rose": Style("#D55E00", "triangle-up", "solid"),
    "fell": Style("#0072B2", "triangle-down", "solid"),
    "rose; too few controls": Style("#D55E00", "triangle-up-open-dot", "solid"),
    "fell; too few controls": Style("#0072B2", "triangle-down-open-dot", "solid"),
    "rose; no control": Style("#D55E00", "triangle-up-open", "solid"),
    "fell; no control": Style("#0072B2", "triangle-down-open", "solid"),
    "no more than latents move under the control": Style("#E69F00", "square", "solid"),
    "a small change": Style("#CC79A7", "cross", "solid"),
}
OTHER = Style("#8A8F98", "circle-open", "solid")
"""The style of findings that say that nothing moved."""
DRAWN = 2_000
"""The largest number of points: an SAE has up to hundreds of thousands of latents."""
WHAT = "latents"


def drawn(table: pd.DataFrame) -> pd.DataFrame:
    """The latents that moved furthest, at most `DRAWN`; those without a number are left out.

    Raises:
        MissingDataError: if a column is missing or no latent's change is a number.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "change_sd", what=WHAT)
    return rows.sort_values("change_sd", key=lambda column: -column.abs(), kind="stable").head(DRAWN)


def latent_scatter(table: pd.DataFrame) -> go.Figure:
    """Draw every latent's change from before to after against the control's; without a control, after against before.

    Each finding has its own shape and colour. On the dotted line a latent moves as far under the control.

    Args:
        table: one row per latent (`LatentTable`, the study's ``latents`` table).

    Raises:
        ValueError: if a column is missing, or no latent's change is a number.
    """
    rows = drawn(table)
    controlled = bool(rows["control_sd"].notna().any())
    x, y = ("control_sd", "change_sd") if controlled else ("before", "after")
    rows = measured(measured(rows, x, what=WHAT), y, what=WHAT)
    figure = new_figure("SAE latents: after against the control" if controlled else "SAE latents: before and after")
    ends = [min(rows[x].min(), rows[y].min()), max(rows[x].max(), rows[y].max())]
    figure.add_shape(type="line", x0=ends[0], y0=ends[0], x1=ends[1], y1=ends[1], line_dash="dot")
    # What moved is drawn last, on top.
    for finding in sorted(rows["finding"].unique(), key=lambda name: -_rank(name)):
        points, style = rows[rows["finding"] == finding], STYLES.get(finding, OTHER)
        figure.add_trace(
            go.Scatter(
                x=points[x].tolist(),
                y=points[y].tolist(),
                mode="markers",
                name=escape_markup(finding),
                legendrank=_rank(finding) + 1,
                marker={"symbol": style.symbol, "color": style.colour, "size": 6 if style is OTHER else 10},
                hovertext=[_hover(row) for row in points.to_dict("records")],
                hoverinfo="text",
            )
        )
    unit = " (SD)" if controlled else ": mean activation"
    figure.update_xaxes(title_text=f"{'change to the control' if controlled else 'before'}{unit}")
    figure.update_yaxes(title_text=f"{'change to after' if controlled else 'after'}{unit}")
    counted_rows = f"n = {counted(len(rows))} latents, each a mean over the same dialogues. "
    line = "Dotted: as far as under the control." if controlled else "Dotted: no change. There was no control."
    return keys_below(figure.update_layout(height=560), note=f"{counted_rows}{line} Hover for 95 % intervals.")


def latent_bars(table: pd.DataFrame, *, n: int = 12) -> go.Figure:
    """Draw the latents that moved furthest up and down, with 95 % intervals, and the control's change of each.

    Args:
        table: one row per latent (`LatentTable`, the study's ``latents`` table).
        n: how many latents at most in either direction.

    Raises:
        ValueError: if a column is missing, or no latent's change is a number.
    """
    rows = drawn(table)
    moved = rows[rows["finding"].isin(_MOVED)]
    shown = moved if len(moved) else rows
    up = shown[shown["change_sd"] > 0].head(n)
    down = shown[shown["change_sd"] < 0].head(n).iloc[::-1]
    rows = pd.concat([up, down])
    if rows.empty:
        raise MissingDataError(f"{WHAT}: no latent's 'change_sd' differs from zero")
    title = "SAE latents that moved furthest" + ("" if len(moved) else " (none is distinguishable from its nulls)")
    figure = new_figure(title)
    places = list(range(len(rows)))
    styles = [STYLES.get(finding, OTHER) for finding in rows["finding"]]
    value, low, high = (rows[name].astype(float).tolist() for name in ("change_sd", "low_sd", "high_sd"))
    figure.add_trace(
        go.Bar(
            x=value,
            y=places,
            orientation="h",
            name="after",
            marker={"color": [style.colour for style in styles], "pattern": {"shape": [_pattern(at) for at in value]}},
            error_x=whiskers(value, low, high, colour=MODEL_STYLES["random"].colour),
            hovertext=[_hover(row) for row in rows.to_dict("records")],
            hoverinfo="text",
            showlegend=False,
        )
    )
    if rows["control_sd"].notna().any():
        control = model_style("control")
        figure.add_trace(
            go.Scatter(
                x=rows["control_sd"].astype(float).tolist(),
                y=places,
                mode="markers",
                name="control",
                marker={"symbol": "square-open", "color": control.colour, "size": 10, "line": {"width": 2}},
                hovertemplate="control: %{x:+.2f} SD<extra></extra>",
                showlegend=True,
            )
        )
    figure.add_vline(x=0.0)
    figure.update_xaxes(title_text="change of the mean activation (SD)")
    labels = [f"latent {latent}" for latent in rows["latent"]]
    figure.update_yaxes(tickvals=places, ticktext=labels, range=[len(rows) - 0.4, -0.6], showgrid=False, ticks="")
    known = "" if rows["control_sd"].notna().any() else " There was no control."
    note = f"Whiskers: 95 % intervals over questions. n = {counted(len(rows))} latents.{known}"
    return keys_below(figure.update_layout(height=210 + 24 * len(rows), bargap=0.35), note=note)


def latent_effects(table: pd.DataFrame) -> go.Figure:
    """Draw how far steering each latent moves the EM rate, compared with matched latents that are steered alike.

    Args:
        table: one row per latent: ``effect`` (change of the EM rate) from ``effect_low`` to ``effect_high``, and
            ``null_effect`` from ``null_low`` to ``null_high`` of its matched latents (`LatentEffects.to_frame`, the
            study's ``latent_effects`` table); with a column ``goal``, one row per latent and goal.

    Raises:
        ValueError: if a column is missing, or no effect is a number.
    """
    what = "latent effects"
    rows = measured(require(table, EFFECT_COLUMNS, what=what), "effect", what=what)
    rows = rows.sort_values("effect", key=lambda column: -column.abs(), kind="stable").head(40)
    figure = new_figure("What steering a latent does to the EM rate")
    places = [float(place) for place in range(len(rows))]
    series = (
        ("this latent", ("effect", "effect_low", "effect_high"), model_style("after"), -0.13),
        ("matched latents", ("null_effect", "null_low", "null_high"), MODEL_STYLES["random"], 0.13),
    )
    for name, columns, style, shift in series:
        value, low, high = (rows[column].astype(float).tolist() for column in columns)
        figure.add_trace(
            go.Scatter(
                x=value,
                y=[place + shift for place in places],
                mode="markers",
                name=name,
                marker={"symbol": style.symbol, "color": style.colour, "size": 10},
                error_x=whiskers(value, low, high, colour=style.colour),
                hovertext=[
                    f"{_label(row)}, {name}<br>{points(row, columns)} percentage points"
                    for row in rows.to_dict("records")
                ],
                hoverinfo="text",
                cliponaxis=False,
            )
        )
    figure.add_vline(x=0.0, line_dash="dot")
    figure.update_xaxes(title_text="change of the EM rate", tickformat="+.0%")
    labels = [_label(row) for row in rows.to_dict("records")]
    figure.update_yaxes(tickvals=places, ticktext=labels, range=[len(rows) - 0.4, -0.6], showgrid=False, ticks="")
    counts = f"; n = {count_range(rows['n'])} answers per latent" if "n" in rows else ""
    note = (
        f"Whiskers: 95 % intervals over questions{counts}. Null, grey: random latents of similar activity, moved as "
        "far. Dotted: no change."
    )
    return keys_below(figure.update_layout(height=210 + 34 * len(rows)), note=note)


_MOVED = tuple(STYLES)[:6]


def _rank(finding: str) -> int:
    """Order of the legend: what moved comes first."""
    return list(STYLES).index(finding) if finding in STYLES else len(STYLES)


def _pattern(value: float) -> str:
    """The pattern of a bar: falling latents are hatched, so that colour is not the only difference."""
    return "/" if value < 0 else ""


def _hover(row: Mapping[Any, Any]) -> str:
    lines = [f"latent {row['latent']}: {escape_markup(row['finding'])}"]
    interval = f" [{row['low_sd']:.2f}, {row['high_sd']:.2f}]" if is_number(row["low_sd"]) else ""
    if is_number(row["change_sd"]):
        lines.append(f"after {signed(row['change_sd'])}{interval} SD")
    if is_number(row["control_sd"]):
        lines.append(f"control {signed(row['control_sd'])} SD")
    if is_number(row["before"]) and is_number(row["after"]):
        lines.append(
            f"mean activation {shown_activation(row['before'])} before, {shown_activation(row['after'])} after"
        )
    return "<br>".join(lines)


def _label(row: Mapping[Any, Any]) -> str:
    return f"latent {row['latent']}" + (f" · {escape_markup(row['goal'])}" if "goal" in row else "")


def points(row: Mapping[Any, Any], columns: tuple[str, str, str]) -> str:
    """A change of a share in percentage points, with its interval: ``+12.0 [+8.1, +15.9]``."""
    value, low, high = (row[name] for name in columns)
    if not is_number(value):
        return NOTHING
    ends = f" [{signed(100 * low, 1)}, {signed(100 * high, 1)}]" if is_number(low) and is_number(high) else ""
    return f"{signed(100 * value, 1)}{ends}"
