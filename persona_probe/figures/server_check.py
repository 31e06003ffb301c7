"""How far a server's log-probabilities are from the local model's, answer by answer."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.template import MODEL_STYLES
from persona_probe.figures.text import escape_markup, is_number

COLUMNS = ("question", "answer", "temperature", "difference")
WHAT = "check of a server"
_KINDS = (("greedy", "before"), ("sampled", "after"))


def server_check(table: pd.DataFrame, tolerance: float) -> go.Figure:
    """Draw the mean absolute difference of a token's log-probability in each answer, and the tolerance.

    Args:
        table: one row per answer, with the columns `COLUMNS`.
        tolerance: nats per token.

    Raises:
        MissingDataError: if a column is missing or holds no number.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "difference", what=WHAT).reset_index(drop=True)
    figure = new_figure("A server's answers, read by the local model")
    for name, style in _KINDS:
        part = rows[(rows["temperature"] == 0) == (name == "greedy")]
        figure.add_trace(
            go.Scatter(
                x=part.index + 1,
                y=part["difference"].clip(lower=1e-7),  # equality has no place on a log axis
                mode="markers",
                name=name,
                marker={"color": MODEL_STYLES[style].colour, "size": 9},
                hovertext=[
                    f"{escape_markup(question)}<br>{escape_markup(answer[:80])}"
                    for question, answer in zip(part["question"], part["answer"], strict=True)
                ],
                hoverinfo="text+y",
            )
        )
    if is_number(tolerance):
        figure.add_hline(y=tolerance, line_dash="dot")
        figure.add_annotation(
            x=0, xref="paper", y=math.log10(tolerance), text="tolerance (of the mean)", xanchor="left", yanchor="bottom"
        )
    figure.update_xaxes(title_text="answer")
    figure.update_yaxes(type="log", title_text="mean difference, nats per token (log scale)", exponentformat="power")
    note = f"Absolute differences of the log-probabilities of the same tokens; n = {len(rows)} answers."
    return keys_below(figure, note=note)
