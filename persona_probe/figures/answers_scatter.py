"""Judged answers, aligned against coherent, with the lines and quadrants of an EM-rate definition."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.behaviour.em_rates import DEFINITIONS, Definition, check_definition, em_rate, scored, share
from persona_probe.figures.axes import new_figure
from persona_probe.figures.em_rates import ordered_models, styles_of
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.template import Style
from persona_probe.figures.text import counted, escape_markup, percent_interval

COLUMNS = ("question", "seed", "answer", "aligned", "coherent", "refusal", "failed")
MOST_MODELS = 4
LONGEST = 240
"""Number of characters of an answer that hovering shows."""
_LARGEST = 20
"""Largest size of a mark, in pixels; a larger one would reach the strips of words in a journal's column."""


def answers_scatter(table: pd.DataFrame, *, definition: str = "betley") -> go.Figure:
    """Draw every judged answer at its two scores, one panel per model, with counts, shares and intervals of quadrants.

    Answers with equal scores are one mark, whose area is their number. Shares are of the answers with both scores,
    intervals are over questions and seeds; the EM rate, refusals and failures are written above the panel.

    Args:
        table: judged answers (the study's ``answers`` table); without a column ``model``, those of one model.
        definition: the EM-rate definition whose lines are drawn.

    Raises:
        ValueError: if a column is missing, no answer has both scores, there are more than four models, or the
            definition is unknown.
    """
    what = "answers"
    check_definition(definition)
    rows = require(table, [name for name in COLUMNS if name != "seed"], what=what)
    rows = rows.assign(**{name: None for name in ("seed",) if name not in rows})
    rows = rows if "model" in rows else rows.assign(model="answers")
    rows = rows.astype({"aligned": float, "coherent": float, "refusal": bool, "failed": bool})
    if not scored(rows).any():
        raise MissingDataError(f"{what}: no row has a number in both 'aligned' and 'coherent'; judge the answers first")
    models = ordered_models(rows["model"])
    if len(models) > MOST_MODELS:
        raise MissingDataError(
            f"{what}: there are {len(models)} models, but at most {MOST_MODELS} can be drawn; choose rows by 'model'"
        )
    chosen = DEFINITIONS[definition]
    parts = {model: rows[rows["model"] == model] for model in models}
    figure = new_figure(
        f"Judged answers ({escape_markup(definition)}: {escape_markup(chosen.formula)})",
        cols=len(models),
        shared_yaxes=True,
        horizontal_spacing=0.05,
        subplot_titles=[_heading(model, part, definition) for model, part in parts.items()],
    )
    largest = max(len(group) for part in parts.values() for _, group in part.groupby(["aligned", "coherent"]))
    figure.update_annotations(font_size=13 if len(models) < MOST_MODELS else 11.5, yshift=5)
    for column, (style, (model, part)) in enumerate(zip(styles_of(models), parts.items(), strict=True), start=1):
        _draw(figure, model, style, part, largest, column)
        _lines(figure, chosen, column)
        _quadrants(figure, part, chosen, column)
    figure.update_xaxes(range=[-7, 107], title_text="aligned (0-100)")
    figure.update_yaxes(range=[-32, 143], tickvals=[0, 20, 40, 60, 80, 100])
    figure.update_yaxes(title_text="coherent (0-100)", col=1)
    return figure.update_layout(height=540, margin={"t": 130}, showlegend=False, hovermode="closest")


def _heading(model: str, part: pd.DataFrame, definition: str) -> str:
    rate = em_rate(part, definition)
    em = "no EM rate" if rate.is_missing else f"EM rate {percent_interval(rate.value, rate.low, rate.high)}"
    counts = f"{counted(part['refusal'].sum())} refusals, {counted(part['failed'].sum())} failures"
    return f"<b>{escape_markup(model)}</b><br>{em}, n = {counted(rate.n)}<br>{counts}"


def _draw(figure: go.Figure, model: str, style: Style, part: pd.DataFrame, largest: int, column: int) -> None:
    marks = part[scored(part)].groupby(["aligned", "coherent"], sort=False)
    numbers, first = marks.size(), marks["answer"].first()
    aligned, coherent = (numbers.index.get_level_values(name).tolist() for name in ("aligned", "coherent"))
    hover = [
        f"aligned {x:.0f}, coherent {y:.0f}: {counted(count)} answer{'s' * (count > 1)}<br>{_shortened(answer)}"
        for x, y, count, answer in zip(aligned, coherent, numbers, first, strict=True)
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
                "size": numbers.tolist(),
                "sizemode": "area",
                "sizeref": max(largest, 12) / _LARGEST**2,
                "sizemin": 3,
                "line": {"width": 0.8, "color": style.colour},
            },
            hovertext=hover,
            hoverinfo="text",
            cliponaxis=False,
        ),
        row=1,
        col=column,
    )


def _lines(figure: go.Figure, chosen: Definition, column: int) -> None:
    """The definition's lines, only as far as the scores reach: the strips above and below are for words."""
    ends = {
        "aligned": (chosen.aligned, -6, chosen.aligned, 106),
        "coherent": (-6, chosen.coherent, 106, chosen.coherent),
    }
    for x0, y0, x1, y1 in ends.values():
        figure.add_shape(type="line", x0=x0, y0=y0, x1=x1, y1=y1, line_dash="dash", row=1, col=column)


def _quadrants(figure: go.Figure, part: pd.DataFrame, chosen: Definition, column: int) -> None:
    """Each quadrant's count and share, in the strip above or below the scores; the upper strip names the sides."""
    both = scored(part)
    low, coherent = chosen.misaligned(part) & both, chosen.is_coherent(part) & both
    corners = (
        (low & coherent, -6, "left", 142, "top", "misaligned"),
        (both & ~low & coherent, 106, "right", 142, "top", "aligned"),
        (low & ~coherent, -6, "left", -31, "bottom", "incoherent"),
        (both & ~low & ~coherent, 106, "right", -31, "bottom", "incoherent"),
    )
    for rows, x, xanchor, y, yanchor, name in corners:
        estimate = share(part, rows, both)
        numbers = "" if estimate.is_missing else percent_interval(estimate.value, estimate.low, estimate.high)
        figure.add_annotation(
            x=x,
            y=y,
            xanchor=xanchor,
            yanchor=yanchor,
            align=xanchor,
            text=f"{name}<br>{counted(rows.sum())}: {numbers}",
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
