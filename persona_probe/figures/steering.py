"""What moving the direction does to behaviour: inducing and suppressing, compared with random directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure, rate_axis, whiskers
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.template import MODEL_STYLES, Style, model_style
from persona_probe.figures.text import count_range, counted, is_number, percent, percent_interval

COLUMNS = (
    "goal",
    "intervention",
    "layers",
    "setting",
    "value",
    "low",
    "high",
    "n",
    "coherent",
    "kl",
    "wrong_way",
    "stage",
    "chosen",
    "draw",
)
STARTS = {"induce": "before", "suppress": "after"}
"""Which model each goal steers."""
KINDS = ("clamp", "add", "ablate", "cap")
INTERVENTIONS = ("none", *KINDS, *(f"random {kind}" for kind in KINDS))
SYMBOLS = {"add": "cross", "ablate": "x", "cap": "triangle-down"}
WHAT = "steering"
EM_RATE = "EM rate"


def steering(table: pd.DataFrame, *, measure: str | None = None) -> go.Figure:
    """Draw behaviour and coherence under each intervention, for each goal in the table, on the held-out questions.

    Under each kind stand its relative dose and its KL. Each random direction is a faint point, their mean a line.
    Where behaviour is a preference, there is no coherence, and the lower panels show the share of questions at which it
    moved the wrong way.

    Args:
        table: one row per goal, intervention, setting and random draw (the study's ``steering`` table).
        measure: ``EM rate`` or ``preference``; default what the table holds: a preference has no coherence.

    Raises:
        ValueError: if a column is missing or empty, or the column 'stage' has no "reported" row.
    """
    there = set(require(table, COLUMNS, what=WHAT)["goal"])
    goals = [goal for goal in STARTS if goal in there] or list(STARTS)
    judged = is_judged(table) if measure is None else measure == EM_RATE
    figure = new_figure(
        "Steering on held-out questions",
        rows=2,
        cols=len(goals),
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.09,
        horizontal_spacing=0.05,
        row_heights=[0.58, 0.42],
        subplot_titles=[f"{goal} (steering <i>{STARTS[goal]}</i>)" for goal in goals],
    )
    for col, goal in enumerate(goals, start=1):
        rows = reported_rows(table, goal)
        names = [name for name in INTERVENTIONS if (rows["intervention"] == name).any()]
        places = {name: float(place) for place, name in enumerate(names)}
        for trace in rate_traces(rows, goal, places, judged=judged):
            figure.add_trace(trace, row=1, col=col)
        lower = coherence_traces(rows, goal, places) if judged else wrong_way_traces(rows, goal, places)
        for trace in lower:
            figure.add_trace(trace, row=2, col=col)
        figure.update_xaxes(
            tickvals=list(places.values()),
            ticktext=[_tick(rows[rows["intervention"] == name].iloc[0]) for name in names],
            range=[-0.6, len(names) - 0.4],
            col=col,
        )
    if judged:
        figure.update_yaxes(**rate_axis("EM rate"), row=1)
    else:
        ends = reported_values(table)
        pad = 0.08 * max(float(ends.max() - ends.min()), 0.1)
        figure.update_yaxes(
            title_text="preference for misaligned<br>answers (nats per token)",
            range=[float(ends.min()) - pad, float(ends.max()) + pad],
            row=1,
        )
    figure.update_yaxes(**rate_axis("coherent answers" if judged else "moved the wrong way"), row=2)
    if len(goals) > 1:
        figure.update_yaxes(title_text=None, col=2)
    reported = table[table["stage"] == "reported"]
    counts = count_range(reported.loc[reported["draw"].isna(), "n"])
    draws = reported.loc[reported["draw"].notna()]
    null = "No random directions were measured."
    if len(draws):
        count = len(set(draws["draw"]))
        null = f"Grey: {count} random directions, moved equally far, one faint point each; the line is their mean."
    dose = "Dose: length of the change divided by that of the stream; nats: KL to the unsteered model, per token."
    unit = "answers" if judged else "questions"
    note = f"Whiskers: 95 % intervals over questions, n = {counts} {unit}. {dose} {null}"
    return keys_below(figure.update_layout(height=680), note=note, keys=False, top=26)


def is_judged(table: pd.DataFrame) -> bool:
    """Whether behaviour is an EM rate; else it is a preference, for which no answer was sampled: none is coherent."""
    return bool(table["coherent"].notna().any())


def reported_rows(table: pd.DataFrame | None, goal: str) -> pd.DataFrame:
    """The rows of one goal that are results: held-out questions, the chosen setting of each intervention.

    Raises:
        ValueError: if a column is missing or empty, or no such row exists.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "value", what=WHAT)
    rows = rows[(rows["stage"] == "reported") & (rows["goal"] == goal)]
    if rows.empty:
        raise MissingDataError(f"{WHAT}: the column 'stage' has no \"reported\" row for the goal {goal!r}")
    chosen = rows["chosen"].eq(True)
    settled = chosen.groupby(rows["intervention"]).transform("any")
    return rows[chosen | ~settled]


def reported_summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One record for each goal and intervention; random directions are averaged, and ``draws`` says how many."""
    records = []
    for goal in STARTS:
        try:
            rows = reported_rows(table, goal)
        except MissingDataError:
            continue
        for name in INTERVENTIONS:
            part = rows[rows["intervention"] == name]
            if part.empty:
                continue
            record = {str(key): value for key, value in part.iloc[0].items()}
            draws = part[part["draw"].notna()]
            if not draws.empty:
                # The draws' own intervals say nothing about the spread of their mean.
                record |= {"value": draws["value"].mean(), "low": None, "high": None}
                record |= {"n": draws["n"].sum(), **{name: draws[name].mean() for name in ("coherent", "wrong_way")}}
            records.append({**record, "draws": len(draws)})
    return records


def reported_values(table: pd.DataFrame) -> pd.Series:
    """All finite values of the reported rows, and the ends of the intervals that are drawn."""
    rows = table[table["stage"] == "reported"]
    single = rows[rows["draw"].isna()]
    ends = pd.concat([rows["value"], single["low"], single["high"]]).astype(float)
    finite: pd.Series = ends[np.isfinite(ends)]
    return finite


def _tick(row: pd.Series) -> str:
    """Kind, layer, dose and KL of an intervention."""
    name = str(row["intervention"])
    parts = name.split(" ")
    if name != "none" and not name.startswith("random"):
        if isinstance(row["layers"], str):
            several = "," in row["layers"]
            parts.append(f"layer{'s' if several else ''} {row['layers'].replace(', ', ',')}")
        if is_number(row["setting"]):
            parts.append(setting_of(name, float(row["setting"])))
        if is_number(row.get("kl")):
            parts.append(f"{float(row['kl']):.2g} nats")
    return "<br>".join(parts)


def setting_of(kind: str, setting: float) -> str:
    """The number that was searched over, with what it is: ``dose 0.25``, or ``percentile 75`` of a cap."""
    return f"{'percentile' if kind.endswith('cap') else 'dose'} {setting:.2g}"


def rate_traces(rows: pd.DataFrame, goal: str, places: Mapping[str, float], *, judged: bool = True) -> list[go.Scatter]:
    """EM rates (or preferences) of ``rows``, each intervention at its place on the x axis."""
    return _traces(rows, goal, places, "value", judged=judged)


def wrong_way_traces(rows: pd.DataFrame, goal: str, places: Mapping[str, float]) -> list[go.Scatter]:
    """Shares of questions at which behaviour moved against the goal."""
    return _traces(rows.dropna(subset=["wrong_way"]), goal, places, "wrong_way", judged=False)


def coherence_traces(rows: pd.DataFrame, goal: str, places: Mapping[str, float]) -> list[go.Scatter]:
    """Shares of coherent answers of ``rows``, each intervention at its place on the x axis."""
    return _traces(rows.dropna(subset=["coherent"]), goal, places, "coherent")


def _traces(
    rows: pd.DataFrame, goal: str, places: Mapping[str, float], column: str, *, judged: bool = True
) -> list[go.Scatter]:
    traces: list[go.Scatter] = []
    for name, place in places.items():
        part = rows[rows["intervention"] == name]
        if part.empty:
            continue
        if name.startswith("random"):
            traces += _random(part, name, place, column, judged=judged)
        else:
            style = model_style(STARTS[goal] if name == "none" else "steered")
            traces.append(_single(part.iloc[0], name, place, column, style, judged=judged))
    return traces


def _single(row: pd.Series, name: str, place: float, column: str, style: Style, *, judged: bool) -> go.Scatter:
    is_rate = column == "value"
    value, low, high = (float(row[end]) for end in ("value", "low", "high"))
    behaviour = (
        f"EM rate {percent_interval(value, low, high)}"
        if judged
        else f"preference {value:+.2f} [{low:+.2f}, {high:+.2f}] nats per token"
    )
    setting = f", {setting_of(name, float(row['setting']))}" if is_number(row["setting"]) else ""
    kl = f"<br>KL {float(row['kl']):.2g} nats per token" if is_number(row.get("kl")) else ""
    wrong = f"<br>wrong way at {percent(row['wrong_way'])} of questions" if is_number(row.get("wrong_way")) else ""
    layer = f", layers {row['layers']}" if isinstance(row["layers"], str) and name != "none" else ""
    coherent = f"<br>coherent {percent(row['coherent'])}" if is_number(row["coherent"]) else ""
    symbol = SYMBOLS.get(name, style.symbol)
    return go.Scatter(
        x=[place],
        y=[row[column]],
        mode="markers",
        name=name,
        marker={
            "color": style.colour,
            "symbol": symbol if is_rate else f"{symbol}-open",
            "size": 12,
            "line": {"width": 2, "color": style.colour},
        },
        error_y=whiskers([row["value"]], [row["low"]], [row["high"]], colour=style.colour) if is_rate else None,
        hovertext=[f"{name}{layer}{setting}{kl}<br>{behaviour}, n = {counted(row['n'])}{coherent}{wrong}"],
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )


def _random(rows: pd.DataFrame, name: str, place: float, column: str, *, judged: bool) -> Sequence[go.Scatter]:
    def text(value: float) -> str:
        return percent(value) if judged or column != "value" else f"{value:+.2f} nats per token"

    style = MODEL_STYLES["random"]
    draws = rows[rows["draw"].notna()]
    draws = rows if draws.empty else draws
    # Spread the draws evenly about their place, so that equal rates do not hide each other.
    count = len(draws)
    offsets = [0.5 * (index / (count - 1) - 0.5) if count > 1 else 0.0 for index in range(count)]
    values = draws[column].astype(float)
    points = go.Scatter(
        x=[place + offset for offset in offsets],
        y=values.tolist(),
        mode="markers",
        name=f"{name}, one direction each",
        marker={"color": style.faded(0.5), "symbol": "circle", "size": 6},
        hovertext=[
            f"{name}, direction {draw:.0f}<br>{text(value)}" if is_number(draw) else f"{name}<br>{text(value)}"
            for draw, value in zip(draws["draw"].tolist(), values.tolist(), strict=True)
        ],
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )
    mean = go.Scatter(
        x=[place],
        y=[float(values.mean())],
        mode="markers",
        name=f"{name}, mean",
        marker={"color": style.colour, "symbol": "line-ew", "size": 30, "line": {"width": 3.5, "color": style.colour}},
        hovertext=[
            f"{name}, mean of {count}: {text(float(values.mean()))}"
            f"<br>from {text(float(values.min()))} to {text(float(values.max()))}"
        ],
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )
    return [points, mean]
