"""Whether baked weights do what the hooked model does: their difference, compared with the intervention's effect."""

from __future__ import annotations

import math

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import require
from persona_probe.figures.rows import label_rows
from persona_probe.figures.template import MODEL_STYLES
from persona_probe.figures.text import counted, is_number

COLUMNS = ("check", "value", "tokens")
WHAT = "baked weights"
_EFFECT, _DIFFERENCE, _TOLERANCE = "effect of the intervention", "difference from the hooked model", "tolerance"


def baked(table: pd.DataFrame) -> go.Figure:
    """Draw the largest change of a logit that the intervention makes, and the largest that baking leaves.

    Args:
        table: rows ``check`` and ``value`` (`Baked.to_frame`).

    Raises:
        ValueError: if a column is missing or empty.
    """
    rows = require(table, COLUMNS, what=WHAT).set_index("check")
    values = {name: float(rows["value"].get(name, float("nan"))) for name in (_EFFECT, _DIFFERENCE, _TOLERANCE)}
    figure = new_figure("Baked weights compared with the hooked model")
    names = [_EFFECT, _DIFFERENCE]
    # Exact equality has no place on a log axis; it is drawn far below what float32 can resolve.
    drawn = [max(values[name], 1e-9) if is_number(values[name]) else None for name in names]
    figure.add_trace(
        go.Scatter(
            x=drawn,
            y=[0, 1],
            mode="markers",
            marker={
                "color": [MODEL_STYLES["steered"].colour, MODEL_STYLES["random"].colour],
                "symbol": ["star", "x"],
                "size": 13,
            },
            hovertext=[f"{name}: {values[name]:.3g}" for name in names],
            hoverinfo="text",
            showlegend=False,
            cliponaxis=False,
        )
    )
    if is_number(values[_TOLERANCE]):
        figure.add_vline(x=values[_TOLERANCE], line_dash="dot")
        # An annotation on a log axis is placed by its logarithm.
        place = math.log10(values[_TOLERANCE])
        figure.add_annotation(x=place, y=1, yref="paper", text="&nbsp;tolerance", xanchor="left", yanchor="top")
    figure.update_xaxes(type="log", title_text="largest difference of a logit (log scale)", exponentformat="power")
    label_rows(figure, names)
    note = f"The largest of all logits at n = {counted(rows['tokens'].iloc[0])} positions; a maximum has no interval."
    return keys_below(figure, note=note, keys=False)
