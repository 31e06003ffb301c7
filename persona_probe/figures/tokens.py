"""The tokens that a direction promotes and suppresses at one layer."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.template import SERIES_STYLES
from persona_probe.figures.text import escape_markup

COLUMNS = ("layer", "rank", "side", "token", "token_id", "logit")
WHAT = "top tokens"
_STYLES = {"promoted": SERIES_STYLES[5], "suppressed": SERIES_STYLES[1]}
_LONGEST = 24


def tokens(table: pd.DataFrame, *, layer: int, name: str) -> go.Figure:
    """Draw the logits of promoted and suppressed tokens, the strongest ones outermost.

    Args:
        table: one row per layer, side and rank (`persona_probe.directions.top_tokens.top_tokens`).
        layer: which layer.
        name: name of the direction.

    Raises:
        ValueError: if a column is missing or empty, or the layer is not in the table.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "logit", what=WHAT)
    rows = rows[rows["layer"] == layer]
    if rows.empty:
        raise MissingDataError(f"{WHAT}: the column 'layer' holds no {layer}")
    up = rows[rows["side"] == "promoted"].sort_values("rank")
    down = rows[rows["side"] == "suppressed"].sort_values("rank", ascending=False)
    ordered = pd.concat([up, down])
    figure = new_figure(f"Tokens along {escape_markup(name)}, layer {layer}")
    places = dict(zip(ordered.index, range(len(ordered)), strict=True))
    for side, rows in (("promoted", up), ("suppressed", down)):
        figure.add_trace(
            go.Bar(
                x=rows["logit"].tolist(),
                y=[places[row] for row in rows.index],
                orientation="h",
                name=side,
                marker={"color": _STYLES[side].colour, "pattern": {"shape": "" if side == "promoted" else "/"}},
                hovertext=[f"{shown(t)} (token {i}): {v:+.3f}" for t, i, v in _columns(rows)],
                hoverinfo="text",
            )
        )
    figure.add_vline(x=0, line_width=1)
    figure.update_xaxes(title_text="logit per unit of length, minus the vocabulary's mean")
    figure.update_yaxes(
        tickvals=list(places.values()),
        ticktext=[shown(token) for token in ordered["token"]],
        range=[len(ordered) - 0.4, -0.6],
        showgrid=False,
        ticks="",
    )
    figure.update_layout(height=170 + 21 * len(ordered), bargap=0.25)
    note = "What the direction adds to the output directly, through the final norm's gain and the unembedding."
    return keys_below(figure, note=note)


def shown(token: object) -> str:
    """An untrusted token as a label: escaped, with visible spaces and line breaks, not too long."""
    text = str(token).replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return escape_markup(text) or "(empty)"


def _columns(rows: pd.DataFrame) -> list[tuple[object, int, float]]:
    return list(zip(rows["token"], rows["token_id"], rows["logit"], strict=True))
