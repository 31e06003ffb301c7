"""A probe's score along answers while they are generated."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import band, new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES
from persona_probe.figures.text import counted
from persona_probe.statistics.rates import mean_estimate

COLUMNS = ("call", "batch", "row", "position", "part", "score")
WHAT = "answer scores"
_LINES = 40
"""The largest number of single answers that are drawn."""
_LEAST = 3
"""The number of answers that a mean needs."""


def answer_scores(table: pd.DataFrame) -> go.Figure:
    """Draw the score against the token of the answer: single answers faint, their mean with a 95 % interval.

    Args:
        table: one row per token (`persona_probe.probes.monitor`'s ``table``).

    Raises:
        ValueError: if a column is missing or empty, or there is no answer.
    """
    rows = require(table, COLUMNS, what=WHAT)
    rows = rows[rows["part"] == "response"]
    if rows.empty:
        raise MissingDataError(f"{WHAT}: the column 'part' has no row 'response'")
    answers = rows.groupby(["call", "batch", "row"], sort=False)
    rows = rows.assign(at=rows["position"] - answers["position"].transform("min"), answer=answers.ngroup())
    count = int(rows["answer"].max()) + 1
    figure = new_figure("Probe score along answers")
    figure.add_trace(_single(rows[rows["answer"] < _LINES]))
    means = [
        (at, mean_estimate(part["score"].to_numpy(dtype=float)), len(part))
        for at, part in rows.groupby("at")
        if len(part) >= _LEAST
    ]
    if means:
        style = SERIES_STYLES[5]
        places = [float(str(at)) for at, _, _ in means]
        estimates = [estimate for _, estimate, _ in means]
        ends = [one.low for one in estimates], [one.high for one in estimates]
        figure.add_trace(band(places, *ends, colour=style.faded(0.25), showlegend=False))
        figure.add_trace(
            go.Scatter(
                x=places,
                y=[one.value for one in estimates],
                mode="lines",
                name="mean of the answers",
                line={"color": style.colour, "width": 2.6},
                hovertext=[
                    f"token {at:.0f}: {one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}], n = {n} answers"
                    for at, one, n in zip(places, estimates, (n for _, _, n in means), strict=True)
                ],
                hoverinfo="text",
            )
        )
    figure.add_hline(y=0.0, line_dash="dot")
    figure.update_xaxes(title_text="token of the answer (counted from 0)")
    figure.update_yaxes(title_text="probe score")
    note = (
        f"n = {counted(count)} answers, {counted(min(count, _LINES))} of them drawn. Band: 95 % interval of the mean, "
        f"over the answers that reach this token (at least {_LEAST}). Dotted: the probe's boundary."
    )
    return keys_below(figure, note=note)


def _single(rows: pd.DataFrame) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    for _, answer in rows.groupby("answer", sort=False):
        x += [*answer["at"].tolist(), None]
        y += [*answer["score"].tolist(), None]
    colour = MODEL_STYLES["random"].faded(0.35)
    return go.Scatter(x=x, y=y, mode="lines", name="one answer", line={"color": colour, "width": 1}, hoverinfo="skip")
