"""Latents along training: mean activation and EM rate against training steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES, Style
from persona_probe.figures.text import count_range, counted, escape_markup, percent_interval

COLUMNS = ("step", "series", "latent", "value", "low", "high", "change", "change_low", "change_high", "n")
WHAT = "trajectory"
_RATE = MODEL_STYLES["after"]
_LATENTS = tuple(style for style in SERIES_STYLES if style.colour != _RATE.colour)


def trajectory(table: pd.DataFrame, *, share: bool = False, axis: str = "training step") -> go.Figure:
    """Draw chosen latents and the EM rate, where there is one, with 95 % intervals over questions.

    Args:
        table: the table of `persona_probe.latents.courses.track_result.LatentTrajectory`.
        share: draw every series as a share of its own final change, on one axis, which shows what comes first. A series
            whose final change is not significantly different from zero is then left out (and named in the legend),
            since it would be magnified noise. Otherwise activations are on the left axis and the rate is on the right.
        axis: what the steps are.

    Raises:
        ValueError: if a column is missing or empty, or no series can be drawn.
    """
    rows = require(table, COLUMNS, what=WHAT)
    names = list(dict.fromkeys(rows["series"]))
    styles = dict(zip([name for name in names if not _is_rate(rows, name)], _LATENTS * len(names), strict=False))
    titled = "Latents along training" if axis == "training step" else f"Latents by {escape_markup(axis)}"
    figure = new_figure(titled, specs=[[{"secondary_y": not share}]])
    left_out, top, counts = [], 0.0, []
    for name in names:
        points = rows[(rows["series"] == name) & np.isfinite(rows["value"].to_numpy(dtype=float))].sort_values("step")
        rate = _is_rate(rows, name)
        if points.empty or (share and not _moved(points.iloc[-1])):
            left_out.append(name)
            continue
        counts.append((name, points["n"]))
        top = max(top, float(points["high"].fillna(points["value"]).max())) if rate else top
        trace = _trace(name, points, _RATE if rate else styles[name], rate=rate, share=share)
        figure.add_trace(trace, row=1, col=1, **({} if share else {"secondary_y": rate}))
    if not counts:
        raise MissingDataError(
            f"{WHAT}: no series can be drawn ({', '.join(left_out)}): none has numbers"
            f"{' and a final change that is significantly different from zero' * share}"
        )
    for name in left_out:
        figure.add_trace(_only_named(name, "does not move" if share else "no number"))
    figure.update_xaxes(title_text=axis)
    noted = "; ".join(f"{escape_markup(name)} n = {count_range(n)}" for name, n in counts)
    figure.add_annotation(
        text=f"whiskers: 95 % over questions; {noted}",
        x=1,
        y=-0.22,
        xref="paper",
        yref="paper",
        xanchor="right",
        yanchor="top",
    )
    figure.update_layout(margin={"b": 92})
    if share:
        figure.update_yaxes(title_text="share of the change at the last step", tickformat=".0%")
        figure.add_hline(y=0.5, line_dash="dot", annotation_text="&nbsp;half", annotation_position="top left")
        return figure
    figure.update_yaxes(title_text="mean activation", rangemode="tozero", secondary_y=False)
    if any(trace.yaxis == "y2" for trace in figure.data):
        figure.update_yaxes(
            **rate_axis("EM rate", top=max(0.1, top)), tickmode="auto", showgrid=False, secondary_y=True
        )
    return figure


def _only_named(name: str, why: str) -> go.Scatter:
    """An entry of the legend for what is not drawn."""
    nothing = {"color": "rgba(0, 0, 0, 0)"}
    return go.Scatter(x=[None], y=[None], mode="lines", name=f"{escape_markup(name)}: {why}", line=nothing)


def _is_rate(rows: pd.DataFrame, name: str) -> bool:
    """Whether a series is the EM rate: a series that is not a latent has the number -1."""
    return bool((rows.loc[rows["series"] == name, "latent"] < 0).any())


def _moved(last: pd.Series) -> bool:
    return bool(last["change_low"] > 0 or last["change_high"] < 0)


def _trace(name: str, points: pd.DataFrame, style: Style, *, rate: bool, share: bool) -> go.Scatter:
    value, low, high = (points[column].astype(float) for column in ("value", "low", "high"))
    where = "" if share else f" ({'right' if rate else 'left'})"
    hover = [
        f"{escape_markup(name)}, step {step:g}<br>"
        + (percent_interval(middle, *ends) if rate else f"{middle:.3g} [{ends[0]:.3g}, {ends[1]:.3g}]")
        + f", n = {counted(n)}"
        for step, middle, ends, n in zip(points["step"], value, zip(low, high, strict=True), points["n"], strict=True)
    ]
    if share:
        final = float(points["change"].iloc[-1])
        value = points["change"] / final
        # of a series that falls, the low end of the change is the high end of its share
        ends = points[["change_low", "change_high"]] / final
        low, high = ends.min(axis=1), ends.max(axis=1)
    return go.Scatter(
        x=points["step"].tolist(),
        y=value.tolist(),
        mode="lines+markers",
        name=f"{escape_markup(name)}{where}",
        line={"color": style.colour, "width": 2.4, "dash": style.dash},
        marker={"symbol": style.symbol, "size": 9},
        error_y=whiskers(value.tolist(), low.tolist(), high.tolist(), colour=style.faded(0.55)),
        hovertext=hover,
        hoverinfo="text",
        cliponaxis=False,
    )
