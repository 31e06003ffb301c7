"""How well a linear probe separates the poles, layer by layer, compared with what needs no model."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import band, layer_axis, mark_layer, new_figure, whiskers
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, measured, require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES, Style
from persona_probe.figures.text import count_range, escape_markup

COLUMNS = ("layer", "auroc", "low", "high", "baseline", "chosen")
PROBE = "probe"
ORDER = ("probe", "token embeddings", "bag of tokens", "shuffled labels", "random features")


def probe(table: pd.DataFrame) -> go.Figure:
    """Draw the AUROC of the probe and of its baselines by layer, with 95 % intervals and chance.

    A baseline without a layer (a bag of tokens has none) is drawn across all layers.

    Args:
        table: one row per layer and baseline (the study's ``probe`` table).

    Raises:
        ValueError: if a column is missing or empty.
    """
    what = "probe"
    rows = measured(require(table, COLUMNS, what=what), "auroc", what=what)
    layers = sorted(rows["layer"].dropna().unique().tolist())
    if not layers:
        raise MissingDataError(f"{what}: the column 'layer' holds no number")
    figure = new_figure("Linear probe by layer")
    for baseline, style in zip(ORDER, SERIES_STYLES, strict=False):
        part = rows[rows["baseline"] == baseline].sort_values("layer")
        if part.empty:
            continue
        if part["layer"].isna().all():
            part = part.head(1).merge(pd.DataFrame({"at": layers}), how="cross").assign(layer=lambda flat: flat["at"])
        line = _line(part, baseline, style)
        if baseline != PROBE and part["auroc"].min() == part["auroc"].max():
            # One number that is the same at every layer gets one interval: bands of several would hide each other.
            line.error_y = _once(part, ORDER.index(baseline), style)
        else:
            bounded = part.dropna(subset=["low", "high"])
            ends = (bounded[column].tolist() for column in ("layer", "low", "high"))
            figure.add_trace(band(*ends, colour=style.faded(0.2), showlegend=False))
        figure.add_trace(line)
    figure.add_hline(y=0.5, line_dash="dot")
    figure.add_trace(_chance())
    lowest = min(0.4, float(rows["auroc"].min()) - 0.05, float(rows["low"].min()) - 0.02)
    figure.update_xaxes(**layer_axis(layers))
    figure.update_yaxes(title_text="AUROC", range=[lowest, 1.03])
    chosen = rows.loc[rows["chosen"].eq(True), "layer"].dropna()
    if len(chosen):
        mark_layer(figure, int(chosen.iloc[0]), layers, end="bottom")
    return keys_below(figure.update_layout(height=440), note=_note(rows))


def _line(rows: pd.DataFrame, baseline: str, style: Style) -> go.Scatter:
    return go.Scatter(
        x=rows["layer"].tolist(),
        y=rows["auroc"].tolist(),
        mode="lines+markers",
        name=escape_markup(baseline),
        line={"color": style.colour, "dash": style.dash, "width": 2.4},
        marker={"symbol": style.symbol, "size": 9},
        customdata=rows[["low", "high"]].to_numpy(dtype=float).tolist(),
        hovertemplate="layer %{x}<br>AUROC %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
    )


def _chance() -> go.Scatter:
    """The dotted line's entry among the keys; in a narrow figure, a label at the line would cover others."""
    line = {"color": MODEL_STYLES["random"].colour, "dash": "dot", "width": 1.5}
    return go.Scatter(x=[None], y=[None], mode="lines", name="chance (0.5)", line=line)


def _once(rows: pd.DataFrame, order: int, style: Style) -> dict[str, Any]:
    """Whiskers at one layer, a different one for each baseline."""
    place = order % len(rows)
    value, low, high = (rows[column].astype(float).tolist() for column in ("auroc", "low", "high"))
    bounds = (
        [end if at == place else middle for at, (end, middle) in enumerate(zip(ends, value, strict=True))]
        for ends in (low, high)
    )
    return whiskers(value, *bounds, colour=style.colour)


def _note(rows: pd.DataFrame) -> str:
    """How the probe was tested, on how many dialogues, and what the bands are."""
    tested = rows[rows["baseline"] == "probe"]
    grouping = escape_markup(tested["grouping"].iloc[0]) if "grouping" in tested and len(tested) else "by group"
    how = (
        "cross-validated, no groups kept together"
        if grouping == "ungrouped"
        else f"Tested on groups it never saw, {grouping}"
    )
    n = f"; n = {count_range(tested['n'])} dialogues" if "n" in tested else ""
    null = " (for shuffled labels: the range of the shuffles)" if (rows["baseline"] == "shuffled labels").any() else ""
    return f"{how[0].upper()}{how[1:]}{n}. Bands and whiskers: 95 % intervals{null}; chance is 0.5."
