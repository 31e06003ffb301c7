"""How much of a layer an SAE preserves: next-token loss with the layer unchanged and replaced."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below, label
from persona_probe.figures.required import require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES, Style
from persona_probe.figures.text import count_range, counted, escape_markup, is_number, percent

COLUMNS = ("model", "fvu", "l0", "dead", "tokens")
WHAT = "reconstruction"
_LOSSES = {
    "ce": ("left alone", Style("#0072B2", "circle", "solid"), ""),
    "ce_sae": ("reconstruction", Style("#D55E00", "diamond", "solid"), "/"),
    "ce_mean": ("its mean (null)", MODEL_STYLES["random"], "x"),
    "ce_zero": ("zeros (null)", Style("#C3C8D0", "square", "solid"), "."),
}


def reconstruction(table: pd.DataFrame) -> go.Figure:
    """Draw the next-token loss of each model with the layer unchanged, reconstructed, or replaced by a null.

    Without losses, draw the share of variance that is explained.

    Args:
        table: one row per model (`persona_probe.reconstruction`).

    Raises:
        ValueError: if a column is missing or empty.
    """
    rows = require(table, COLUMNS, what=WHAT)
    n = count_range(rows["tokens"])
    figure = new_figure("What the SAE preserves of its layer")
    names = [label(name) for name in rows["model"]]
    shown = {name: look for name, look in _LOSSES.items() if name in rows and rows[name].notna().any()}
    for column, (name, style, pattern) in shown.items():
        figure.add_trace(_bars(rows, names, column, name, style, pattern))
    if not shown:
        figure.add_trace(
            _bars(rows.assign(explained=1 - rows["fvu"]), names, "explained", "", SERIES_STYLES[1], "").update(
                showlegend=False
            )
        )
        figure.update_yaxes(title_text="share of variance explained", tickformat=".0%", range=[0, 1.03])
    else:
        figure.update_yaxes(title_text="next-token loss (nats)", rangemode="tozero")
    note = f"Sums over all n = {n} tokens per model, without intervals. " + "; ".join(
        f"{escape_markup(row['model'])}: {percent(1 - row['fvu'])} of the variance explained{_recovered(row)}, "
        f"{row['l0']:.3g} latents per token"
        for row in rows.to_dict("records")
    )
    return keys_below(figure.update_layout(barmode="group", height=470), note=f"{note}.", keys=bool(shown))


def _recovered(row: dict[object, object]) -> str:
    shares = [float(str(row[name])) for name in ("ce_recovered", "ce_recovered_mean") if is_number(row.get(name))]
    return f", {percent(min(shares))} of the loss recovered" if shares else ""


def _bars(rows: pd.DataFrame, names: list[str], column: str, name: str, style: Style, pattern: str) -> go.Bar:
    return go.Bar(
        x=names,
        y=rows[column].astype(float).tolist(),
        name=name,
        marker={"color": style.colour, "pattern": {"shape": pattern, "fgcolor": "#FFFFFF", "fillmode": "overlay"}},
        hovertext=[
            f"{label}, {name or 'variance explained'}<br>{value:.3f}, n = {counted(count)} tokens"
            for label, value, count in zip(names, rows[column], rows["tokens"], strict=True)
        ],
        hoverinfo="text",
    )
