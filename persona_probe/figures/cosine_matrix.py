"""Cosines of all pairs of directions at one layer as a matrix, compared with those of random directions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.matrix import Matrix, heatmap
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.text import escape_markup

COLUMNS = ("layer", "first", "second", "cosine")
WHAT = "direction cosines"


def cosine_matrix(table: pd.DataFrame, *, layer: int | None = None) -> go.Figure:
    """Draw the cosines at one layer; cosines that random directions also reach are in parentheses.

    Args:
        table: one row per layer and pair (`persona_probe.directions.cosine_table`; the study's ``direction_cosines``
            and ``finder_cosines`` tables); ``null_high`` and ``ceiling`` are stated where the table has them.
        layer: which layer; default the middle one.

    Raises:
        ValueError: if a column is missing or empty, or the layer is not in the table.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "cosine", what=WHAT)
    layers = sorted(rows["layer"].unique().tolist())
    layer = layers[len(layers) // 2] if layer is None else layer
    rows = rows[rows["layer"] == layer]
    if rows.empty:
        raise MissingDataError(f"{WHAT}: the column 'layer' holds no {layer}")
    names = list(dict.fromkeys([*rows["first"], *rows["second"]]))
    places = {name: place for place, name in enumerate(names)}
    values = np.where(np.eye(len(names)) > 0, 1.0, np.nan)
    unsure = np.zeros(values.shape, dtype=bool)
    hover = [[escape_markup(name)] * len(names) for name in names]
    for row in rows.to_dict("records"):
        one, two = places[row["first"]], places[row["second"]]
        null, ceiling = (float(row.get(name, np.nan)) for name in ("null_high", "ceiling"))
        text = f"{escape_markup(row['first'])} × {escape_markup(row['second'])}<br>cosine {row['cosine']:.3f}"
        text += f"<br>random: |cosine| up to {null:.3f}" if np.isfinite(null) else ""
        text += f"<br>ceiling that noise allows: {ceiling:.3f}" if np.isfinite(ceiling) else ""
        for at in ((one, two), (two, one)):
            values[at], unsure[at] = row["cosine"], abs(row["cosine"]) <= null
            hover[at[0]][at[1]] = text
    return heatmap(
        Matrix(names, names, values, hover, unsure),
        title=f"Agreement between directions, layer {layer}",
        note=_note(rows),
        quantity="cosine",
        middle=0.0,
        ends=(-1.0, 1.0),
    )


def _note(rows: pd.DataFrame) -> str:
    null = rows["null_high"].dropna() if "null_high" in rows else pd.Series(dtype=float)
    if null.empty:
        return "Cosine of each pair; one number per pair, so there is no interval. No null was measured."
    note = f"97.5 % of random directions have a |cosine| below {_span(null)}; such cosines are in parentheses."
    ceiling = rows["ceiling"].dropna() if "ceiling" in rows else null.iloc[:0]
    if len(ceiling):
        note += f" Noise allows at most {_span(ceiling)} for two estimates of the same direction."
    return note


def _span(values: pd.Series) -> str:
    low, high = f"{values.min():.2f}", f"{values.max():.2f}"
    return low if low == high else f"{low} to {high}"
