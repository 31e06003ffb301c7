"""Panels that are side by side on a screen, and one below the other in a column of print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from persona_probe.report.paper.text_size import LINE, lines_of

GAP = 74.0
"""Pixels between blocks, for the tick labels and axis title of the upper one."""
HEAD = 34.0
"""Additional pixels above a block that has its own heading or keys."""
FOOT = 44.0
"""Additional pixels below a block with notes under its tick labels."""
_CLOSE = 0.17
"""The greatest distance above a block, in shares of the plot, of what belongs to it."""


@dataclass
class Block:
    """One panel, or several that share an x axis: its place (in shares of the plot) and its axes."""

    left: float
    right: float
    low: float
    high: float
    x_axes: list[str]
    y_axes: list[str]


def find_blocks(figure: go.Figure) -> list[Block]:
    """The blocks in reading order: columns if panels share x axes, otherwise single panels, row by row."""
    layout = figure.layout
    cells: dict[tuple[float, float], Block] = {}
    for name in _axes(figure, "xaxis"):
        axis = layout[name]
        y_name = "yaxis" + (axis.anchor or "y")[1:]
        y_axis = layout[y_name]
        left, right = axis.domain or (0.0, 1.0)
        low, high = y_axis.domain or (0.0, 1.0)
        cell = cells.setdefault((round(left, 3), round(low, 3)), Block(left, right, low, high, [], []))
        cell.x_axes.append(name)
        cell.y_axes.append(y_name)
    if not any(layout[name].matches for name in _axes(figure, "xaxis")):
        return sorted(cells.values(), key=lambda cell: (-round(cell.high, 3), cell.left))
    columns: dict[float, Block] = {}
    for cell in sorted(cells.values(), key=lambda cell: -cell.high):
        column = columns.setdefault(round(cell.left, 3), Block(cell.left, cell.right, cell.low, cell.high, [], []))
        column.low, column.high = min(column.low, cell.low), max(column.high, cell.high)
        column.x_axes += cell.x_axes
        column.y_axes += cell.y_axes
    return sorted(columns.values(), key=lambda column: column.left)


def side_by_side(blocks: list[Block]) -> bool:
    """Whether any two blocks are side by side."""
    return len({round(block.left, 3) for block in blocks}) > 1


def shares_rows(figure: go.Figure, blocks: list[Block]) -> bool:
    """Whether the blocks are columns of one table, whose rows are named once, at the left."""
    named = [bool(figure.layout[name].ticktext) for block in blocks for name in block.y_axes]
    return len(blocks) > 1 and named[0] and all(figure.layout[b.y_axes[0]].matches for b in blocks[1:])


def stack(figure: go.Figure, blocks: list[Block], plot: float, each: float, legend_rows: dict[str, int]) -> float:
    """Put the blocks below one another and return the new height of the plot in pixels.

    Args:
        figure: the figure, which is changed.
        blocks: the blocks from `find_blocks`.
        plot: the old height of the plot in pixels.
        each: pixels for each block.
        legend_rows: the number of rows of each legend inside the plot.
    """
    layout = figure.layout
    moved = [(thing, _owner(thing, blocks)) for thing in layout.annotations if _on_paper(thing)]
    keys = [(layout[name], rows, _owner(layout[name], blocks)) for name, rows in legend_rows.items()]
    heads = [0.0] * len(blocks)
    for thing, owner in moved:
        if thing.y >= blocks[owner].high - 1e-6:
            heads[owner] = max(heads[owner], HEAD * 0.65 + LINE * 14 * len(lines_of(thing.text)) - 14)
    for _, rows, owner in keys:
        heads[owner] += 21.0 * rows
    feet = [FOOT if _has_foot(figure, block) else 0.0 for block in blocks]
    total = each * len(blocks) + sum(heads[1:]) + GAP * (len(blocks) - 1) + sum(feet[:-1])
    tops, top = [], total
    for index in range(len(blocks)):
        top -= heads[index] if index else 0.0
        tops.append(top)
        top -= each + GAP + feet[index]
    for block, edge in zip(blocks, tops, strict=True):
        _move_axes(figure, block, (edge - each) / total, edge / total)
    for legend, _, owner in keys:
        legend.update(x=0.0, xanchor="left", y=(tops[owner] + 3) / total, yanchor="bottom")
    for thing, owner in moved:
        block = blocks[owner]
        above = (thing.y - block.high) * plot
        if above > -1e-6:
            above = 3 + 21.0 * sum(rows for _, rows, mine in keys if mine == owner)
        thing.update(x=(thing.x - block.left) / (block.right - block.left), y=(tops[owner] + above) / total)
    return total


def _move_axes(figure: go.Figure, block: Block, low: float, high: float) -> None:
    height = block.high - block.low
    for name in block.x_axes:
        figure.layout[name].domain = (0.0, 1.0)
    for name in dict.fromkeys(block.y_axes):
        axis = figure.layout[name]
        ends = axis.domain or (0.0, 1.0)
        # Rounding must not move an end out of the plot.
        axis.domain = [min(max(low + (end - block.low) / height * (high - low), 0.0), 1.0) for end in ends]
        _label_again(figure, name)


def _has_foot(figure: go.Figure, block: Block) -> bool:
    under = {f"{name.replace('axis', '')} domain" for name in block.y_axes}
    return any(note.yref in under and (note.y or 0) < 0 for note in figure.layout.annotations)


def _label_again(figure: go.Figure, name: str) -> None:
    """Give an axis whose labels were at its neighbour its labels back."""
    axis = figure.layout[name]
    other = figure.layout["yaxis" + axis.matches[1:]] if axis.matches else None
    if other is None or axis.showticklabels is not False:
        return
    axis.update(showticklabels=True, tickformat=other.tickformat, tickvals=other.tickvals, ticktext=other.ticktext)
    if not axis.title.text:
        axis.title.text = other.title.text


def _axes(figure: go.Figure, kind: str) -> list[str]:
    return [name for name in figure.layout if name.startswith(kind) and figure.layout[name] is not None]


def _on_paper(thing: Any) -> bool:
    return thing.xref in (None, "paper") and thing.yref in (None, "paper")


def _owner(thing: Any, blocks: list[Block]) -> int:
    """The block above which a heading or a legend is, or else the nearest."""
    x, y = thing.x or 0.0, thing.y or 0.0

    def distance(block: Block) -> float:
        aside = max(block.left - x, x - block.right, 0.0)
        above = y - block.high
        return aside * 10 + (above if 0 <= above + 1e-6 <= _CLOSE else 1 + abs(above))

    return min(range(len(blocks)), key=lambda index: distance(blocks[index]))
