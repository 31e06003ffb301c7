"""The numbers of a direction's card by layer: its length, whether halves of the data agree, whether it separates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import band, layer_axis, new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES
from persona_probe.figures.text import escape_markup
from persona_probe.statistics.replication import FAILS, LEAST_COSINE

COLUMNS = (
    *("layer", "norm", "split_half_cosine", "shuffled_cosine", "held_out_auroc", "held_out_auroc_low"),
    *("held_out_auroc_high", "shuffled_norm", "replication"),
)
WHAT = "direction"
PANELS = {
    "norm": ("length", "residual-stream units", "shuffled_norm"),
    "split_half_cosine": ("split-half agreement", "cosine", "shuffled_cosine"),
    "held_out_auroc": ("separation, other half", "AUROC", None),
}
_NULL = "97.5 % under exchanged labels"


def direction_card(table: pd.DataFrame, *, name: str, verdict: str) -> go.Figure:
    """Draw length, split-half cosine and held-out AUROC by layer, compared with those under exchanged labels.

    Layers at which the direction does not replicate are open circles; the AUROC has its interval.

    Args:
        table: one row per layer (`Direction.to_frame`); panels without numbers are left out.
        name: name of the direction.
        verdict: where it replicates, in words; below the figure.

    Raises:
        ValueError: if a column is missing, or there is no length.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "norm", what=WHAT).sort_values("layer")
    shown = [column for column in PANELS if rows[column].notna().any()]
    titles = [PANELS[column][0] for column in shown]
    figure = new_figure(
        f"Direction: {escape_markup(name)}", cols=len(shown), subplot_titles=titles, horizontal_spacing=0.12
    )
    for col, column in enumerate(shown, start=1):
        _, unit, null = PANELS[column]
        if null is not None and rows[null].notna().any():
            figure.add_trace(_null(rows, null, mirrored=column != "norm", named=col == 1), row=1, col=col)
        if column == "held_out_auroc" and rows["held_out_auroc_low"].notna().any():
            figure.add_trace(_interval(rows), row=1, col=col)
        figure.add_trace(_line(rows, column, unit), row=1, col=col)
        figure.update_xaxes(**{**layer_axis(rows["layer"]), "title_text": "layer"}, row=1, col=col)
        figure.update_yaxes(title_text=unit, range=_range(rows, column, null), row=1, col=col)
        if column == "held_out_auroc":
            figure.add_hline(y=0.5, line_dash="dot", annotation_text="chance", row=1, col=col)
        if column == "split_half_cosine":
            figure.add_hline(y=LEAST_COSINE, line_dash="dot", annotation_text="least", row=1, col=col)
    if rows["replication"].eq(FAILS).any():
        figure.add_trace(_key(), row=1, col=1)
    return keys_below(figure, note=_note(shown, rows, verdict), keys=len(shown) > 1, top=26)


def _line(rows: pd.DataFrame, column: str, unit: str) -> go.Scatter:
    style = SERIES_STYLES[1]
    return go.Scatter(
        x=rows["layer"].tolist(),
        y=rows[column].tolist(),
        mode="lines+markers",
        name="this direction",
        showlegend=column == "norm",
        line={"color": style.colour, "width": 2.4},
        marker={"symbol": marks(style.symbol, rows["replication"]), "size": 8},
        hovertemplate=f"layer %{{x}}<br>%{{y:.3f}} {unit}<extra></extra>",
    )


def marks(symbol: str, replication: pd.Series) -> list[str]:
    """The symbol of each layer: open where the direction does not replicate."""
    return [f"{symbol}-open" if status == FAILS else symbol for status in replication]


def _key() -> go.Scatter:
    style = SERIES_STYLES[1]
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        name="does not replicate at this layer",
        marker={"symbol": f"{style.symbol}-open", "color": style.colour, "size": 8},
    )


def _interval(rows: pd.DataFrame) -> go.Scatter:
    known = rows.dropna(subset=["held_out_auroc_low", "held_out_auroc_high"])
    ends = (known[name].tolist() for name in ("layer", "held_out_auroc_low", "held_out_auroc_high"))
    return band(*ends, colour=SERIES_STYLES[1].faded(0.2), showlegend=False)


def _null(rows: pd.DataFrame, column: str, *, mirrored: bool, named: bool) -> go.Scatter:
    known = rows.dropna(subset=[column])
    high = known[column].tolist()
    low = [-value if mirrored else 0.0 for value in high]
    colour = MODEL_STYLES["random"].faded(0.32)
    return band(known["layer"].tolist(), low, high, colour=colour, name=_NULL, showlegend=named, legendgroup=_NULL)


def _range(rows: pd.DataFrame, column: str, null: str | None) -> list[float]:
    if column == "norm":
        return [0.0, 1.08 * float(np.nanmax(rows[[column, "shuffled_norm"]].to_numpy()))]
    low = float(rows[column].min())
    if column == "held_out_auroc":
        return [min(0.4, low - 0.05, float(rows["held_out_auroc_low"].fillna(low).min()) - 0.02), 1.03]
    return [min(-0.05, low - 0.05, *(-1.1 * rows[name].max() for name in [null] if rows[name].notna().any())), 1.05]


def _note(shown: list[str], rows: pd.DataFrame, verdict: str) -> str:
    first = escape_markup(verdict[0].upper() + verdict[1:]) + "."
    if len(shown) == 1 and rows["shuffled_norm"].isna().all():
        return first
    splits = (
        " Agreement and separation: means over splits of the questions into halves, one direction found in each; "
        "band: 95 % interval over questions; chance is 0.5 for the AUROC."
    )
    null = (
        " Grey: the range of 97.5 % of directions when the labels of whole questions are exchanged, at each layer by "
        "itself, not corrected for the number of layers."
    )
    if rows["shuffled_norm"].isna().all():
        null = " There are too few questions, or draws, for the range of directions under exchanged labels."
    return first + (splits if len(shown) > 1 else "") + null
