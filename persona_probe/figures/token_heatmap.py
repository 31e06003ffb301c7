"""A number at every token: one row per layer, or per series."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import LAYER_TITLE, new_figure
from persona_probe.figures.required import measured, require
from persona_probe.figures.text import escape_markup, is_number, visible

COLUMNS = ("position", "token", "part", "series", "unit", "layer", "value", "centre", "sd", "random", "sink")
SCALE = [[0.0, "#0072B2"], [0.25, "#7FB8D8"], [0.5, "#F4F4F2"], [0.75, "#EAAE80"], [1.0, "#D55E00"]]
WHAT = "token heatmap"
_LABELLED = 90


def token_heatmap(table: pd.DataFrame) -> go.Figure:
    """Draw one dialogue's tokens against layers; against series where all are of one layer.

    Numbers are SD from the reference where that is known, so that layers can be compared; otherwise they are distances
    from the centre in their own unit. 95 % of the tokens are within the range of the colours. Attention sinks are left
    empty. Where random directions were measured, the title says how far they reach.

    Args:
        table: rows of one dialogue of `persona_probe.token_view.view.TokenView`: one series, or several of
            one layer and unit.

    Raises:
        ValueError: if a column is missing, or no value is a number.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "value", what=WHAT)
    by = "layer" if len(set(rows["series"])) == 1 and len(set(rows["layer"])) > 1 else "series"
    spread = bool(rows["sd"].notna().all())
    distance = rows["value"].astype(float) - rows["centre"].astype(float)
    rows = rows.assign(shown=(distance / rows["sd"] if spread else distance).where(~rows["sink"].astype(bool)))
    order = sorted(rows["layer"].unique()) if by == "layer" else list(dict.fromkeys(rows["series"]))
    grid = rows.pivot_table(index=by, columns="position", values="shown", dropna=False).reindex(order)
    off = np.abs(grid.to_numpy(dtype=float))
    off = off[np.isfinite(off) & (off > 0)]
    top = float(np.quantile(off, 0.95)) if len(off) else 1.0
    unit = "SD from the reference" if spread else str(rows["unit"].iloc[0])
    tokens = rows.drop_duplicates("position").set_index("position").reindex(grid.columns)
    figure = new_figure(_title(rows, by, spread))
    figure.add_trace(
        go.Heatmap(
            z=grid.to_numpy(dtype=float),
            x=list(range(len(tokens))),
            y=[str(int(layer)) for layer in order] if by == "layer" else [escape_markup(name) for name in order],
            zmin=-top,
            zmax=top,
            colorscale=SCALE,
            colorbar={"title": {"text": escape_markup(unit), "side": "right"}, "thickness": 14},
            text=[[_hover(row, by) for row in _line(rows, by, name, grid.columns)] for name in order],
            hoverinfo="text",
            xgap=0.5,
            ygap=0.5,
        )
    )
    few = len(tokens) <= _LABELLED
    shown = [_tick(str(token)) for token in tokens["token"]]
    figure.update_xaxes(
        title_text=f"token (n = {len(tokens)})",
        tickmode="array" if few else "auto",
        tickvals=list(range(len(shown))) if few else None,
        ticktext=shown if few else None,
        tickangle=-90 if few else 0,
        tickfont={"size": 10.5},
        showgrid=False,
    )
    figure.update_yaxes(type="category", title_text=LAYER_TITLE if by == "layer" else None, showgrid=False)
    begins = tokens["part"].ne(tokens["part"].shift()).to_numpy()
    for place in np.flatnonzero(begins)[1:]:
        figure.add_vline(x=float(place) - 0.5, line_width=1.5)
    return figure.update_layout(height=230 + max(170, 26 * len(order)), margin={"b": 110, "t": 64})


def _tick(token: str) -> str:
    """A token on one short line, with visible spaces."""
    text = visible(token).replace("\n", "↵").replace("\t", "→").replace(" ", "␣")
    return escape_markup(text if len(text) <= 16 else f"{text[:15]}…")


def _title(rows: pd.DataFrame, by: str, spread: bool) -> str:
    what = escape_markup(rows["series"].iloc[0]) if by == "layer" else f"layer {int(rows['layer'].iloc[0])}"
    random = rows.drop_duplicates(["series", "layer"])
    reach = (random["random"] / random["sd"] if spread else random["random"]).dropna().astype(float)
    if reach.empty:
        return f"{what}, token by token"
    ends = f"{reach.min():.2g}" if len(reach) == 1 else f"{reach.min():.2g} to {reach.max():.2g}, by layer"
    return f"{what}, token by token (97.5 % along random directions: {ends})"


def _line(rows: pd.DataFrame, by: str, name: object, positions: pd.Index) -> list[dict[str, object]]:
    line = rows[rows[by] == name].drop_duplicates("position").set_index("position").reindex(positions)
    return [{str(key): value for key, value in row.items()} for row in line.reset_index().to_dict("records")]


def _hover(row: dict[str, object], by: str) -> str:
    if not is_number(row["value"]):
        return "not read"
    value = float(str(row["value"]))
    where = f"layer {row['layer']:.0f}" if by == "layer" else escape_markup(row["series"])
    text = f"{escape_markup(repr(str(row['token'])))}, position {row['position']}, {escape_markup(row['part'])}"
    sd = ""
    if is_number(row["sd"]):
        sd = f" ({(value - float(str(row['centre']))) / float(str(row['sd'])):+.2f} SD from the reference)"
    sink = "<br>attention sink: not coloured" if row["sink"] else ""
    return f"{text}<br>{where}: {value:+.4g} {escape_markup(row['unit'])}{sd}{sink}"
