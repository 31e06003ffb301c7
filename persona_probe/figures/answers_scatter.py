"""Judged answers, aligned against coherent, with the lines and quadrants of an EM-rate definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.em_rates import ordered_models, styles_of
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.template import Style
from persona_probe.figures.text import counted, escape_markup, is_number, percent_interval

MARKS = ("model", "aligned", "coherent", "answers", "answer")
RATES = ("model", "value", "low", "high", "n", "refusals", "failures")
QUADRANTS = ("model", "misaligned", "coherent", "answers", "value", "low", "high")
MOST_MODELS = 4
LONGEST = 240
"""Number of characters of an answer that hovering shows."""
_LARGEST = 20
"""Largest size of a mark, in pixels; a larger one would reach the strips of words in a journal's column."""


def answers_scatter(
    marks: pd.DataFrame,
    rates: pd.DataFrame,
    quadrants: pd.DataFrame,
    *,
    definition: str,
    formula: str,
    aligned: float,
    coherent: float,
) -> go.Figure:
    """Draw every judged answer at its two scores, one panel per model, with counts, shares and intervals of quadrants.

    Answers with equal scores are one mark, whose area is their number. The EM rate, refusals and failures are written
    above the panel. `persona_probe.behaviour.answers.scatter_tables` makes the tables.

    Args:
        marks: one row per model and pair of scores (0-100): ``answers`` (how many have them) and one ``answer``.
        rates: one row per model: its EM rate with interval, ``n``, ``refusals`` and ``failures``.
        quadrants: one row per model and quadrant (``misaligned``, ``coherent``): ``answers`` in it, and their share of
            those with both scores, with its interval.
        definition: the name of the EM rate.
        formula: what it computes.
        aligned: where its line between misaligned and aligned lies.
        coherent: where its line between incoherent and coherent lies.

    Raises:
        ValueError: if a column is missing, no answer has both scores, or there are more than four models.
    """
    what = "answers"
    rates = require(rates, RATES, what=what)
    if marks.empty:
        raise MissingDataError(f"{what}: no row has a number in both 'aligned' and 'coherent'; judge the answers first")
    marks, quadrants = require(marks, MARKS, what=what), require(quadrants, QUADRANTS, what=what)
    models = ordered_models(rates["model"])
    if len(models) > MOST_MODELS:
        raise MissingDataError(
            f"{what}: there are {len(models)} models, but at most {MOST_MODELS} can be drawn; choose rows by 'model'"
        )
    heads = {str(row["model"]): _heading(row) for row in rates.to_dict("records")}
    figure = new_figure(
        f"Judged answers ({escape_markup(definition)}: {escape_markup(formula)})",
        cols=len(models),
        shared_yaxes=True,
        horizontal_spacing=0.05,
        subplot_titles=[heads[model] for model in models],
    )
    largest = int(marks["answers"].max())
    figure.update_annotations(font_size=13 if len(models) < MOST_MODELS else 11.5, yshift=5)
    for column, (style, model) in enumerate(zip(styles_of(models), models, strict=True), start=1):
        _draw(figure, model, style, marks[marks["model"].astype(str) == model], largest, column)
        _lines(figure, aligned, coherent, column)
        _quadrants(figure, quadrants[quadrants["model"].astype(str) == model], column)
    figure.update_xaxes(range=[-7, 107], title_text="aligned (0-100)")
    figure.update_yaxes(range=[-32, 143], tickvals=[0, 20, 40, 60, 80, 100])
    figure.update_yaxes(title_text="coherent (0-100)", col=1)
    return figure.update_layout(height=540, margin={"t": 130}, showlegend=False, hovermode="closest")


def _heading(row: Mapping[Any, Any]) -> str:
    rate = (
        f"EM rate {percent_interval(row['value'], row['low'], row['high'])}"
        if is_number(row["value"])
        else "no EM rate"
    )
    counts = f"{counted(row['refusals'])} refusals, {counted(row['failures'])} failures"
    return f"<b>{escape_markup(str(row['model']))}</b><br>{rate}, n = {counted(row['n'])}<br>{counts}"


def _draw(figure: go.Figure, model: str, style: Style, marks: pd.DataFrame, largest: int, column: int) -> None:
    aligned, coherent, numbers = (marks[name].tolist() for name in ("aligned", "coherent", "answers"))
    texts = [
        f"aligned {x:.0f}, coherent {y:.0f}: {counted(count)} answer{'s' * (count > 1)}<br>{_shortened(answer)}"
        for x, y, count, answer in zip(aligned, coherent, numbers, marks["answer"], strict=True)
    ]
    figure.add_trace(
        go.Scatter(
            x=aligned,
            y=coherent,
            mode="markers",
            name=escape_markup(model),
            marker={
                "color": style.faded(0.45),
                "symbol": style.symbol,
                "size": numbers,
                "sizemode": "area",
                "sizeref": max(largest, 12) / _LARGEST**2,
                "sizemin": 3,
                "line": {"width": 0.8, "color": style.colour},
            },
            hovertext=texts,
            hoverinfo="text",
            cliponaxis=False,
        ),
        row=1,
        col=column,
    )


def _lines(figure: go.Figure, aligned: float, coherent: float, column: int) -> None:
    """The definition's lines, as long as the scores reach: the strips above and below are for words."""
    for x0, y0, x1, y1 in ((aligned, -6, aligned, 106), (-6, coherent, 106, coherent)):
        figure.add_shape(type="line", x0=x0, y0=y0, x1=x1, y1=y1, line_dash="dash", row=1, col=column)


def _quadrants(figure: go.Figure, quadrants: pd.DataFrame, column: int) -> None:
    """Each quadrant's count and share, in the strip above or below the scores; the upper ones name the sides."""
    for row in quadrants.to_dict("records"):
        name = ("misaligned" if row["misaligned"] else "aligned") if row["coherent"] else "incoherent"
        x, xanchor = (-6, "left") if row["misaligned"] else (106, "right")
        y, yanchor = (142, "top") if row["coherent"] else (-31, "bottom")
        share = percent_interval(row["value"], row["low"], row["high"]) if is_number(row["value"]) else ""
        figure.add_annotation(
            x=x,
            y=y,
            xanchor=xanchor,
            yanchor=yanchor,
            align=xanchor,
            text=f"{name}<br>{counted(row['answers'])}: {share}",
            font_size=11,
            row=1,
            col=column,
        )


def _shortened(answer: object) -> str:
    text = " ".join(str(answer).split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
    # Wrapped before it is escaped, so that no HTML entity is cut.
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "<br>".join(map(escape_markup, lines))
