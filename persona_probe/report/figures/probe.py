"""How well a linear probe tells the poles apart, layer by layer, beside what needs no model."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.report.figures.axes import band, layer_axis, mark_layer, new_figure
from persona_probe.report.figures.checks import MissingDataError, measured, require
from persona_probe.report.template import SERIES_STYLES
from persona_probe.report.text import escape_markup

COLUMNS = ("layer", "auroc", "low", "high", "baseline", "chosen")
ORDER = ("probe", "token embeddings", "bag of tokens", "shuffled labels")


def probe(table: pd.DataFrame) -> go.Figure:
    """Draw the AUROC of the probe and of its baselines by layer, with 95 % intervals and chance.

    A baseline without a layer (a bag of tokens has none) is drawn across all layers.

    Args:
        table: one row a layer and baseline (the study's ``probe`` table).

    Raises:
        ValueError: if a column is missing or empty.
    """
    what = "probe"
    rows = measured(require(table, COLUMNS, what=what), "auroc", what=what)
    layers = sorted(rows["layer"].dropna().unique().tolist())
    if not layers:
        raise MissingDataError(f"{what}: the column 'layer' holds no number")
    figure = new_figure("Linear probe, tested on topics it was not trained on")
    for baseline, style in zip(ORDER, SERIES_STYLES, strict=False):
        own = rows[rows["baseline"] == baseline].sort_values("layer")
        if own.empty:
            continue
        if own["layer"].isna().all():
            own = own.head(1).merge(pd.DataFrame({"at": layers}), how="cross").assign(layer=lambda flat: flat["at"])
        bounded = own.dropna(subset=["low", "high"])
        figure.add_trace(
            band(
                bounded["layer"].tolist(),
                bounded["low"].tolist(),
                bounded["high"].tolist(),
                colour=style.faded(0.2),
                showlegend=False,
            )
        )
        figure.add_trace(
            go.Scatter(
                x=own["layer"].tolist(),
                y=own["auroc"].tolist(),
                mode="lines+markers",
                name=escape_markup(baseline),
                line={"color": style.colour, "dash": style.dash, "width": 2.4},
                marker={"symbol": style.symbol, "size": 9},
                customdata=own[["low", "high"]].to_numpy(dtype=float).tolist(),
                hovertemplate="layer %{x}<br>AUROC %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
            )
        )
    figure.add_hline(y=0.5, line_dash="dot", annotation_text="chance&nbsp;", annotation_position="bottom right")
    lowest = min(0.4, float(rows["auroc"].min()) - 0.05, float(rows["low"].min()) - 0.02)
    figure.update_xaxes(**layer_axis(layers))
    figure.update_yaxes(title_text="AUROC", range=[lowest, 1.03])
    chosen = rows.loc[rows["chosen"].eq(True), "layer"].dropna()
    if len(chosen):
        mark_layer(figure, int(chosen.iloc[0]), layers, end="bottom")
    return figure
