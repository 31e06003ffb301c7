"""A matrix of numbers as a heatmap, with the numbers in its cells: readable in colour, in grey, and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below, label
from persona_probe.figures.text import NOTHING

# Transparent, so that the page's own background is the middle, and its text colour is readable at both ends.
_COLOURS = ((0.0, "rgba(0, 114, 178, 0.62)"), (0.5, "rgba(128, 128, 128, 0.0)"), (1.0, "rgba(213, 94, 0, 0.62)"))
_UPPER = ((0.0, _COLOURS[1][1]), (1.0, _COLOURS[2][1]))
"""For numbers that cannot be below the middle."""
_SIDE, _SMALL = 62, 34
"""Height of a row in pixels: with an interval in its cells, and without."""
_MOST = 22
"""With more columns than this, numbers would not fit into the cells; hovering shows them."""
_WITH_INTERVALS = 6
_ACROSS = 64
"""Characters of labels that fit in one line below the narrowest plot; longer ones are slanted."""


@dataclass(frozen=True)
class Matrix:
    """The content of a heatmap.

    Attributes:
        rows: names from top to bottom.
        columns: names from left to right.
        values: ``(row, column)``; NaN where there is none.
        hover: the text that appears over a cell, by row and column, escaped.
        unsure: ``(row, column)`` cells not distinguishable from their null: their numbers are in parentheses.
        intervals: by row and column, written below the numbers while there is room.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Float[np.ndarray, "row column"]
    hover: Sequence[Sequence[str]]
    unsure: Bool[np.ndarray, "row column"]
    intervals: Sequence[Sequence[str]] | None = None


def heatmap(
    matrix: Matrix,
    *,
    title: str,
    note: str,
    quantity: str,
    middle: float,
    ends: tuple[float, float],
    axes: tuple[str, str] = ("", ""),
) -> go.Figure:
    """Draw ``matrix``, its colours diverging around ``middle``.

    Args:
        matrix: numbers and names.
        title: title of the figure.
        note: what the numbers and parentheses mean, n, and the null.
        quantity: what the colour bar shows.
        middle: the number that has no colour: the one for no effect.
        ends: the numbers with full colour: equally far from ``middle`` on both sides, or the first equals ``middle``.
        axes: titles of the columns and the rows.
    """
    places = list(range(len(matrix.columns))), list(range(len(matrix.rows)))
    written = matrix.intervals is not None and len(matrix.columns) <= _WITH_INTERVALS
    figure = new_figure(title)
    figure.add_trace(
        go.Heatmap(
            x=places[0],
            y=places[1],
            z=matrix.values.tolist(),
            zmin=ends[0],
            zmax=ends[1],
            colorscale=_COLOURS if ends[0] < middle else _UPPER,
            xgap=2,
            ygap=2,
            hovertext=matrix.hover,
            hoverinfo="text",
            colorbar={"title": {"text": quantity, "side": "right"}, "thickness": 12, "outlinewidth": 0, "len": 1.0},
        )
    )
    if len(matrix.columns) <= _MOST:
        figure.add_trace(_numbers(matrix, written))
    names = [label(name) for name in matrix.columns], [label(name) for name in matrix.rows]
    slanted = max(len(line) for name in names[0] for line in name.split("<br>")) * len(matrix.columns) > _ACROSS
    bare = {"showgrid": False, "showline": False, "ticks": ""}
    figure.update_xaxes(
        tickvals=places[0],
        ticktext=names[0],
        title_text=axes[0],
        tickangle=-40 if slanted else 0,
        range=[-0.5, len(matrix.columns) - 0.5],
        **bare,
    )
    figure.update_yaxes(
        tickvals=places[1], ticktext=names[1], title_text=axes[1], range=[len(matrix.rows) - 0.5, -0.5], **bare
    )
    side = _SIDE if written else max(_SMALL, 44 - len(matrix.rows))
    figure.update_layout(height=max(300, 190 + side * len(matrix.rows) + (90 if slanted else 0)))
    return keys_below(figure, note=note, keys=False)


def _written(value: float) -> str:
    """Two decimals; a rounded zero has no sign."""
    return f"{value if round(value, 2) else 0.0:.2f}".replace("-", "−")


def _numbers(matrix: Matrix, written: bool) -> go.Scatter:
    """The cells' numbers in the page's text colour, which a heatmap's own text would not have."""
    texts, x, y = [], [], []
    for row, column in np.ndindex(matrix.values.shape):
        value = matrix.values[row, column]
        text = NOTHING if np.isnan(value) else _written(value)
        text = f"({text})" if matrix.unsure[row, column] and text != NOTHING else text
        if written and matrix.intervals is not None and text != NOTHING:
            text = f"{text}<br><span style='font-size: 10.5px'>{matrix.intervals[row][column]}</span>"
        texts.append(text)
        x.append(column)
        y.append(row)
    size = 13 if len(matrix.columns) <= 10 else 10
    return go.Scatter(x=x, y=y, text=texts, mode="text", textfont={"size": size}, hoverinfo="skip", showlegend=False)
