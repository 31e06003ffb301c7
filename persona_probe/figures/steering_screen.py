"""Whether a direction steers at all: its gain at each layer, compared with random directions of the same dose."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.template import MODEL_STYLES

WHAT = "steering screen"
COLUMNS = ("draw", "layers", "setting", "gain", "kl")


def steering_screen(table: pd.DataFrame) -> go.Figure:
    """Draw the gain of a direction at each layer at the largest dose that does not break the model, and random ones'.

    Args:
        table: one row per direction and layer (`SteeringScreen.table`, perhaps of several goals, in the column
            ``goal``); ``draw`` is missing for the real direction.

    Raises:
        ValueError: if a column is missing, or there is no row of the direction.
    """
    rows = require(table, COLUMNS, what=WHAT)
    rows = rows.assign(at=rows["layers"].astype(int))
    real = rows[rows["draw"].isna()]
    if real.empty:
        raise MissingDataError(f"{WHAT}: the column 'draw' has no missing value, so that there is no real direction")
    goals = list(dict.fromkeys(rows["goal"])) if "goal" in rows else [None]
    titles = None if goals == [None] else goals
    figure = new_figure("Does the direction steer?", rows=1, cols=len(goals), shared_yaxes=True, subplot_titles=titles)
    for col, goal in enumerate(goals, start=1):
        part = rows if goal is None else rows[rows["goal"] == goal]
        for trace in _traces(part):
            figure.add_trace(trace.update(showlegend=col == 1), row=1, col=col)
    figure.add_hline(y=0, line_width=1, line_color="rgba(0,0,0,0.4)")
    figure.update_xaxes(title_text="layer", dtick=1 if rows["at"].max() < 16 else None)
    figure.update_yaxes(title_text="gain towards the goal<br>(nats per token)", col=1)
    note = (
        "Gain: how much the wanted answers gain on the other ones. At each layer, the largest relative dose (change "
        f"divided by stream) within the budget of KL, here {real['setting'].min():.2g} to {real['setting'].max():.2g}; "
        f"{rows['draw'].nunique()} random directions."
    )
    return keys_below(figure.update_layout(height=420), note=note, top=26)


def _traces(rows: pd.DataFrame) -> list[go.Scatter]:
    """The random directions of one goal, and the real one."""
    random, real = rows[rows["draw"].notna()], rows[rows["draw"].isna()].sort_values("at")
    grey, steered = MODEL_STYLES["random"], MODEL_STYLES["steered"]
    traces = []
    if len(random):
        traces.append(
            go.Scatter(
                x=random["at"].tolist(),
                y=random["gain"].astype(float).tolist(),
                mode="markers",
                name="random directions of the same dose",
                marker={"color": grey.faded(0.5), "size": 7},
                hovertext=[f"random {row['draw']}<br>{_numbers(row)}" for row in random.to_dict("records")],
                hoverinfo="text",
                cliponaxis=False,
            )
        )
    traces.append(
        go.Scatter(
            x=real["at"].tolist(),
            y=real["gain"].astype(float).tolist(),
            mode="lines+markers",
            name="the direction",
            line={"color": steered.colour, "width": 2.2},
            marker={"color": steered.colour, "symbol": steered.symbol, "size": 10},
            hovertext=[_numbers(row) for row in real.to_dict("records")],
            hoverinfo="text",
            cliponaxis=False,
        )
    )
    return traces


def _numbers(row: dict[object, object]) -> str:
    setting, gain, kl = (float(str(row[name])) for name in ("setting", "gain", "kl"))
    return f"layer {row['layers']}, dose {setting:.2g}<br>gain {gain:+.2f} nats per token, KL {kl:.2g} nats"
