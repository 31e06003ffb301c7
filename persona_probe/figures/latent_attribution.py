"""How much latents favour the misaligned answer, to first order."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import measured, require
from persona_probe.figures.rows import Mark, add_marks, label_rows
from persona_probe.figures.template import model_style
from persona_probe.figures.text import count_range

COLUMNS = ("latent", "attribution", "low", "high", "q", "n_questions")
WHAT = "attribution"
_ALPHA = 0.05


def latent_attribution(table: pd.DataFrame, *, n: int = 20) -> go.Figure:
    """Draw the latents with the largest attribution, with 95 % intervals; 0 is a latent that does nothing.

    Args:
        table: one row per latent (`persona_probe.latents.attribute_latents`).
        n: how many latents at most.

    Raises:
        ValueError: if a column is missing or empty, or no attribution is a number.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "attribution", what=WHAT)
    rows = rows.sort_values("attribution", key=lambda column: -column.abs(), kind="stable").head(n)
    figure = new_figure("Latents by attribution to the misaligned answer")
    for name, style, sign in (
        ("speaks for the misaligned answer", model_style("after"), 1),
        ("speaks for the aligned answer", model_style("before"), -1),
    ):
        marks = [
            Mark(
                place,
                row["attribution"],
                row["low"],
                row["high"],
                f"latent {row['latent']}<br>{row['attribution']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}] nats, "
                f"q = {row['q']:.2g}",
                filled=row["q"] < _ALPHA,
            )
            for place, row in enumerate(rows.to_dict("records"))
            if (row["attribution"] > 0) == (sign > 0)
        ]
        add_marks(figure, marks, name, style)
    figure.add_vline(x=0.0, line_dash="dot")
    figure.update_xaxes(title_text="attribution (nats of log-odds)")
    label_rows(figure, [f"latent {latent}" for latent in rows["latent"]])
    note = (
        f"Whiskers: 95 % intervals over questions (n = {count_range(rows['n_questions'])}). Filled: significantly "
        f"different from 0 at a false-discovery rate of {_ALPHA:g} over all latents. First order only."
    )
    return keys_below(figure, note=note)
