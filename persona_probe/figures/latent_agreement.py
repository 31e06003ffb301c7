"""Which latents point where directions point, compared with what the best latent reaches with a random direction."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.rows import Mark, add_marks, label_rows
from persona_probe.figures.template import MODEL_STYLES, SERIES_STYLES
from persona_probe.figures.text import counted, escape_markup, is_number

COLUMNS = ("latent", "direction", "cosine", "null", "rank")
WHAT = "latent agreement"


def latent_agreement(table: pd.DataFrame, *, n: int = 8) -> go.Figure:
    """Draw each direction's nearest latents by cosine, with the null as a grey band.

    Args:
        table: one row per direction and latent (`persona_probe.latents.latent_agreement`).
        n: the largest number of latents per direction.

    Raises:
        ValueError: if a column is missing or empty, or no cosine is a number.
    """
    whole = measured(require(table, COLUMNS, what=WHAT), "cosine", what=WHAT)
    rows = whole[whole["rank"] <= n]
    figure = new_figure("Decoder rows compared with directions")
    names = list(dict.fromkeys(rows["direction"]))
    null = float(rows["null"].iloc[0])
    places = {index: place for place, index in enumerate(rows.index)}
    for number, name in enumerate(names):
        nearest = rows[rows["direction"] == name]
        marks = [
            Mark(
                places[index],
                row["cosine"],
                float("nan"),
                float("nan"),
                f"latent {row['latent']}, {escape_markup(name)}<br>cosine {row['cosine']:+.3f}, null {null:.3f}",
                filled=abs(row["cosine"]) > null,
            )
            for index, row in zip(nearest.index, nearest.to_dict("records"), strict=True)
        ]
        add_marks(figure, marks, escape_markup(name), SERIES_STYLES[number % len(SERIES_STYLES)])
    if is_number(null):
        figure.add_vrect(x0=-null, x1=null, fillcolor=MODEL_STYLES["random"].faded(0.25), line_width=0, layer="below")
    figure.add_vline(x=0.0, line_dash="dot")
    figure.update_xaxes(title_text="cosine", range=[-1.03, 1.03])
    label_rows(figure, [f"latent {latent}" for latent in rows["latent"]])
    latents = counted(whole.groupby("direction")["latent"].nunique().max())
    note = (
        f"The nearest of n = {latents} latents. Grey band: what the nearest of them reaches with a random direction "
        "(97.5 %); filled marks: beyond it. A cosine of two fixed vectors has no interval."
    )
    return keys_below(figure, note=note)
