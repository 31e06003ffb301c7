"""The strength that meets a budget: what each strength that was tried costs, and which was chosen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.template import SERIES_STYLES, Style
from persona_probe.figures.text import count_range, counted, percent_interval

WHAT = "calibration"
_SIGNS = {1: ("along the direction (+)", SERIES_STYLES[0]), -1: ("against it (-)", SERIES_STYLES[1])}


def calibration(tried: pd.DataFrame, chosen: pd.DataFrame, *, budget: float, statistic: str) -> go.Figure:
    """Draw KL, or the share of coherent answers, against relative dose, with the budget and the dose chosen.

    Args:
        tried: one row per strength: ``strength`` (with its sign), ``dose`` (relative dose), ``kl`` (nats) or
            ``coherent`` (a share), ``low``, ``high`` and ``n`` (`StrengthCalibration.tried`).
        chosen: one row per sign: ``sign``, ``strength`` and ``dose`` (`StrengthCalibration.table`).
        budget: the KL, or the smallest share of coherent answers.
        statistic: ``mean`` or ``p95`` of the KL, or ``coherent``.

    Raises:
        ValueError: if a column is missing or empty, or no strength is a number.
    """
    column = "coherent" if statistic == "coherent" else "kl"
    rows = require(tried, ("strength", "dose", column, "low", "high", "n"), what=WHAT)
    taken = require(chosen, ("sign", "strength", "dose"), what=WHAT)
    figure = new_figure("Strength that meets the budget")
    usable = np.isfinite(rows[column].to_numpy(dtype=float)) & (rows["dose"].to_numpy(dtype=float) > 0)
    if column == "kl":
        usable &= rows[column].to_numpy(dtype=float) > 0
    rows = rows[usable]
    if rows.empty:
        raise MissingDataError(f"{WHAT}: the columns 'strength' and {column!r} hold no number to draw")
    for sign, (name, style) in _SIGNS.items():
        tested = rows[np.sign(rows["strength"]) == sign].sort_values("strength", key=abs)
        if tested.empty:
            continue
        figure.add_trace(_curve(tested, column, name, style))
        at = taken[(taken["sign"] == sign) & taken["strength"].notna()]
        if len(at):
            figure.add_trace(_taken(tested, column, at.iloc[0], sign, style))
    unit = "coherent answers" if column == "coherent" else f"KL, {statistic} over tokens (nats)"
    text = f"&nbsp;budget {budget:.0%}" if column == "coherent" else f"&nbsp;budget {budget:g} nats"
    figure.add_hline(y=budget, line_dash="dot", annotation_text=text, annotation_position="top left")
    figure.update_xaxes(
        type="log", title_text="relative dose (change divided by stream), log scale", exponentformat="power"
    )
    if column == "coherent":
        figure.update_yaxes(**rate_axis(unit))
    else:
        figure.update_yaxes(type="log", title_text=f"{unit}, log scale", exponentformat="power")
    n = count_range(rows["n"])
    note = f"Whiskers: 95 % intervals over questions, n = {n} {'answers' if column == 'coherent' else 'tokens'} each."
    return keys_below(figure.update_layout(height=460), note=note)


def _curve(tested: pd.DataFrame, column: str, name: str, style: Style) -> go.Scatter:
    value, low, high = (tested[part].astype(float).tolist() for part in (column, "low", "high"))
    if column == "kl":
        # A log axis has no place for 0, which the interval of a small mean may reach.
        low = [max(end, middle / 100) if end == end else end for end, middle in zip(low, value, strict=True)]
    return go.Scatter(
        x=tested["dose"].astype(float).tolist(),
        y=value,
        mode="lines+markers",
        name=name,
        line={"color": style.colour, "dash": style.dash, "width": 2},
        marker={"symbol": style.symbol, "size": 8},
        error_y=whiskers(value, low, high, colour=style.faded(0.6)),
        hovertext=[_hover(row, column) for row in tested.to_dict("records")],
        hoverinfo="text",
        cliponaxis=False,
    )


def _taken(tested: pd.DataFrame, column: str, chosen: pd.Series, sign: int, style: Style) -> go.Scatter:
    near = tested.iloc[(tested["strength"] - chosen["strength"]).abs().argsort().iloc[:1]]
    return go.Scatter(
        x=[float(chosen["dose"])],
        y=near[column].astype(float).tolist(),
        mode="markers",
        name=f"taken: dose {chosen['dose']:.2g} (strength {chosen['strength']:+.3g})",
        marker={
            "symbol": "circle-open",
            "size": 19,
            "color": style.colour,
            "line": {"width": 3, "color": style.colour},
        },
        hoverinfo="skip",
        cliponaxis=False,
        legendrank=1001 + (sign < 0),
    )


def _hover(row: dict[object, object], column: str) -> str:
    value, low, high = (float(str(row[name])) for name in (column, "low", "high"))
    measured = (
        f"coherent {percent_interval(value, low, high)}"
        if column == "coherent"
        else f"KL {value:.3g} [{low:.3g}, {high:.3g}] nats"
    )
    where = f"relative dose {float(str(row['dose'])):.2g}, strength {float(str(row['strength'])):+.4g}"
    return f"{where}<br>{measured}, n = {counted(row['n'])}"
