"""The main figure: the whole story of a study in four panels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.amplification import draw_amplification
from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.em_rates import COLUMNS as EM_COLUMNS
from persona_probe.figures.em_rates import MODELS, UNSEEN, called
from persona_probe.figures.preference import COLUMNS as PREFERENCE_COLUMNS
from persona_probe.figures.realignment import draw_realignment
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.steering import STARTS, is_judged, rate_traces, reported_rows
from persona_probe.figures.template import MODEL_STYLES, model_style
from persona_probe.figures.text import count_range, counted, escape_markup, is_number, percent, percent_interval, signed

WIDTH, HEIGHT = 1160, 860
"""The size at which nothing in the figure collides; the size to export it at."""
PREFERRED = "<b>a</b>  Preference for misaligned answers"
PANELS = (
    "<b>a</b>  EM rate by model",
    "<b>b</b>  Amplification of the persona direction",
    "<b>c</b>  Steering, against random directions",
    "<b>d</b>  Realignment by benign examples",
)
KEYS = {
    "orientation": "h",
    "xanchor": "left",
    "yanchor": "bottom",
    "font": {"size": 12.5},
    "bgcolor": "rgba(0, 0, 0, 0)",
}
NULLS = MODEL_STYLES["random"].colour
BESIDE = 0.45
"""How far to the right of its rate an intervention's coherence is drawn, so that it does not cover the rate's label."""
STEERED = ("none", "clamp", "add", "random clamp")


def summary(
    em_rates: pd.DataFrame | None = None,
    amplification: pd.DataFrame | None = None,
    steering: pd.DataFrame | None = None,
    realignment: pd.DataFrame | None = None,
    preference: pd.DataFrame | None = None,
    *,
    definition: str = "betley",
    asked: str = UNSEEN,
) -> go.Figure:
    """Draw EM rates (or preference), amplification, steering and realignment side by side.

    A panel whose table is missing says so; the figure needs at least one.

    Args:
        em_rates: the study's ``em_rates`` table.
        amplification: the study's ``amplification`` table.
        steering: the study's ``steering`` table.
        realignment: the study's ``realignment`` table.
        preference: the study's ``preference`` table; panel a shows it where there are no EM rates.
        definition: which EM-rate definition panel a shows.
        asked: what to call the questions that the table calls "unseen topics".

    Raises:
        ValueError: if no panel can be drawn; the message says what each one lacks.
    """
    figure = new_figure(
        "",
        rows=2,
        cols=2,
        specs=[[{}, {}], [{}, {"secondary_y": True}]],
        horizontal_spacing=0.1,
        vertical_spacing=0.24,
    )
    lacking = []
    preferred = _has_no_rate(em_rates) and preference is not None and not preference.empty
    panels: tuple[tuple[Callable[[], None], int, int], ...] = (
        (lambda: _preferences(figure, preference) if preferred else _rates(figure, em_rates, definition, asked), 1, 1),
        (lambda: draw_amplification(figure, amplification, row=1, col=2, legend="legend2"), 1, 2),
        (lambda: _steering(figure, steering), 2, 1),
        (lambda: draw_realignment(figure, realignment, row=2, col=2, legend="legend4", nulls=False), 2, 2),
    )
    for draw, row, col in panels:
        try:
            draw()
        except MissingDataError as missing:
            lacking.append(str(missing))
            _say_missing(figure, row, col)
    if len(lacking) == len(panels):
        raise MissingDataError(f"summary: no panel can be drawn ({'; '.join(lacking)})")
    _shorten_keys(figure)
    _head_panels(figure, (PREFERRED, *PANELS[1:]) if preferred else PANELS)
    return figure.update_layout(height=HEIGHT, margin={"t": 76, "b": 84, "l": 70, "r": 20})


def _rates(figure: go.Figure, table: pd.DataFrame | None, definition: str, asked: str) -> None:
    rows = require(table, EM_COLUMNS, what="EM rates")
    rows = measured(rows[rows["definition"] == definition], "value", what="EM rates")
    names = [model for model in MODELS if (rows["model"] == model).any()]
    opened = bool((rows["questions"] == "open").any())
    for questions, offset, mark in ((UNSEEN, -0.2 * opened, ""), ("open", 0.2, "-open")):
        part = rows[rows["questions"] == questions]
        if part.empty:
            continue
        known = escape_markup(called(questions, asked))
        _key(figure, "open questions" if questions == "open" else known, f"circle{mark}", "legend")
        for _, row in part.iterrows():
            model = str(row["model"])
            style = model_style(model)
            numbers = percent_interval(row["value"], row["low"], row["high"])
            figure.add_trace(
                go.Scatter(
                    x=[names.index(model) + offset],
                    y=[row["value"]],
                    mode="markers",
                    name=f"{escape_markup(model)}, {known}",
                    marker={
                        "color": style.colour,
                        "symbol": f"{style.symbol}{mark}",
                        "size": 12,
                        "line": {"width": 2, "color": style.colour},
                    },
                    error_y=whiskers([row["value"]], [row["low"]], [row["high"]], colour=style.colour),
                    hovertext=[f"{escape_markup(model)}, {known}<br>{numbers}, n = {counted(row['n'])}"],
                    hoverinfo="text",
                    showlegend=False,
                    cliponaxis=False,
                ),
                row=1,
                col=1,
            )
            _label(figure, names.index(model) + offset, row["value"], row["high"], row=1)
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[f"{escape_markup(name)}<br>{_sizes(rows[rows['model'] == name])}" for name in names],
        range=[-0.6, len(names) - 0.4],
        showgrid=False,
        row=1,
        col=1,
    )
    figure.update_yaxes(**rate_axis("EM rate"), row=1, col=1)


def _has_no_rate(table: pd.DataFrame | None) -> bool:
    return table is None or "value" not in table or not table["value"].notna().any()


def _preferences(figure: go.Figure, table: pd.DataFrame | None) -> None:
    """The margin of every model on content pairs, and the same after other questions and on style nulls."""
    rows = require(table, PREFERENCE_COLUMNS, what="preference")
    names = list(dict.fromkeys(rows["model"].astype(str)))
    marks = (
        ("margin", "content", "content pairs", "circle", -0.22),
        ("shuffled", "content", "after other questions", "circle-open", 0.0),
        ("margin", "style", "style nulls", "diamond-open", 0.22),
    )
    for measure, kind, called_so, symbol, offset in marks:
        part = rows[(rows["measure"] == measure) & (rows["kind"] == kind) & rows["value"].notna()]
        if part.empty:
            continue
        _key(figure, called_so, symbol, "legend")
        for _, row in part.iterrows():
            model = str(row["model"])
            colour = model_style(model).colour
            ends = f" [{row['low']:.2f}, {row['high']:.2f}]" if is_number(row["low"]) else ""
            figure.add_trace(
                go.Scatter(
                    x=[names.index(model) + offset],
                    y=[row["value"]],
                    mode="markers",
                    name=f"{escape_markup(model)}, {called_so}",
                    marker={"color": colour, "symbol": symbol, "size": 11, "line": {"width": 2, "color": colour}},
                    error_y=whiskers([row["value"]], [row["low"]], [row["high"]], colour=colour),
                    hovertext=[
                        f"{escape_markup(model)}, {called_so}<br>{signed(row['value'])}{ends} nats per token, "
                        f"n = {counted(row['n'])}"
                    ],
                    hoverinfo="text",
                    showlegend=False,
                    cliponaxis=False,
                ),
                row=1,
                col=1,
            )
    sizes = rows[(rows["measure"] == "margin") & (rows["kind"] == "content")].set_index("model")["n"]
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[
            escape_markup(name) + (f"<br>{_small(f'n = {counted(sizes[name])}')}" if name in sizes.index else "")
            for name in names
        ],
        range=[-0.6, len(names) - 0.4],
        showgrid=False,
        row=1,
        col=1,
    )
    figure.update_yaxes(title_text="margin (nats per token)", zeroline=True, row=1, col=1)


def _sizes(rows: pd.DataFrame) -> str:
    """The numbers of answers behind a model's marks, left to right."""
    sizes = [rows.loc[rows["questions"] == questions, "n"] for questions in (UNSEEN, "open")]
    numbers = " / ".join(counted(size.iloc[0]) for size in sizes if len(size))
    return _small(f"n = {numbers}")


def _small(text: str) -> str:
    return f"<span style='font-size:12px'>{text}</span>"


def _steering(figure: go.Figure, table: pd.DataFrame | None) -> None:
    reported = {goal: reported_rows(table, goal) for goal in STARTS}
    judged = any(map(is_judged, reported.values()))
    start = 0.0
    _key(figure, "EM rate" if judged else "preference", "star", "legend3")
    if judged:
        _key(figure, "coherent", "circle-open", "legend3", size=8)
    _key(figure, "random, one each", "circle", "legend3", size=6)
    ticks: dict[float, str] = {}
    for goal, model in STARTS.items():
        rows = reported[goal]
        names = [name for name in STEERED if (rows["intervention"] == name).any()]
        places = {name: start + index for index, name in enumerate(names)}
        for trace in rate_traces(rows, goal, places, judged=judged):
            figure.add_trace(trace, row=2, col=1)
        for name in names:
            part = rows[rows["intervention"] == name]
            # Random directions are points without whiskers: their label is placed above the highest point.
            tops = part["value"] if name.startswith("random") else part["high"].fillna(part["value"])
            _label(figure, places[name], float(part["value"].mean()), float(tops.max()), row=2, rate=judged)
        # Coherence is drawn next to its rate, and smaller: it qualifies the rate, and is not the result.
        coherent = rows.groupby("intervention")["coherent"].mean().dropna()
        figure.add_trace(_coherence(coherent, places), row=2, col=1)
        ticks.update({place: name.split()[0] for name, place in places.items()})
        figure.add_annotation(
            x=start + (len(names) - 1) / 2,
            y=-0.14,
            yref="y3 domain",
            yanchor="top",
            text=f"{goal} (steering <i>{model}</i>)<br>" + _small(f"n = {count_range(rows['n'])} each"),
            font_size=14,
            row=2,
            col=1,
        )
        start += len(names) + 0.5
    figure.update_xaxes(
        tickvals=list(ticks), ticktext=list(ticks.values()), range=[-0.6, start - 0.9], showgrid=False, row=2, col=1
    )
    figure.update_yaxes(
        **(rate_axis("share of answers") if judged else {"title_text": "preference (nats per token)"}), row=2, col=1
    )


def _coherence(shares: pd.Series, places: dict[str, float]) -> go.Scatter:
    grey = MODEL_STYLES["random"].colour
    names = [name for name in places if name in shares.index]
    return go.Scatter(
        x=[places[name] + BESIDE for name in names],
        y=[float(shares[name]) for name in names],
        mode="markers",
        name="coherent answers",
        marker={"symbol": "circle-open", "color": grey, "size": 8, "line": {"width": 2}},
        hovertext=[f"{name}<br>coherent {percent(float(shares[name]))}" for name in names],
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )


def _label(figure: go.Figure, x: float, value: float, top: float, *, row: int, rate: bool = True) -> None:
    """Write a rate (or a preference) above everything that belongs to it."""
    figure.add_annotation(
        x=x,
        y=top if is_number(top) else value,
        text=percent(value) if rate else signed(value),
        yanchor="bottom",
        yshift=5,
        font_size=12,
        row=row,
        col=1,
    )


def _key(figure: go.Figure, name: str, symbol: str, legend: str, *, size: int = 10) -> None:
    """A legend entry in neutral colour, for a mark that several colours share."""
    colour = MODEL_STYLES["random"].colour
    marker = {"symbol": symbol, "color": colour, "size": size, "line": {"width": 2 if "open" in symbol else 0}}
    row = 1 if legend == "legend" else 2
    figure.add_trace(
        go.Scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, legend=legend), row=row, col=1
    )


def _say_missing(figure: go.Figure, row: int, col: int) -> None:
    figure.add_trace(go.Scatter(x=[None], y=[None], showlegend=False), row=row, col=col)
    figure.update_xaxes(visible=False, row=row, col=col)
    figure.update_yaxes(visible=False, row=row, col=col)
    figure.add_annotation(
        text="not measured in this study", x=0.5, y=0.5, xref="x domain", yref="y domain", row=row, col=col
    )


def _shorten_keys(figure: go.Figure) -> None:
    """Amplification's keys in one line above a panel of half the width: one key for all nulls but random directions."""
    others = False
    for trace in figure.select_traces(selector={"legend": "legend2"}):
        if trace.showlegend is False or not trace.name:
            continue
        if trace.name.startswith("97.5 % of random"):
            trace.update(name="random, 97.5 %")
        elif trace.name.startswith("open:"):
            trace.update(name="not replicated")
        elif trace.name not in MODELS:
            trace.update(name="other nulls", showlegend=not others, line={"color": NULLS, "dash": "dot"})
            others = True


def _head_panels(figure: go.Figure, titles: Sequence[str]) -> None:
    """Place each panel's title and keys above the panel, at its left edge."""
    for index, title in enumerate(titles, start=1):
        axes = figure.get_subplot((index + 1) // 2, 2 - index % 2)
        left, top = axes.xaxis.domain[0], axes.yaxis.domain[1]
        figure.add_annotation(
            text=title,
            font_size=16,
            x=left,
            y=top + 0.062,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="bottom",
        )
        figure.update_layout({f"legend{index if index > 1 else ''}": {**KEYS, "x": left, "y": top + 0.008}})
