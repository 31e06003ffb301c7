"""How often the latents of an SAE are active."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.template import SERIES_STYLES
from persona_probe.figures.text import counted

COLUMNS = ("latent", "mean", "frequency")
WHAT = "latent frequencies"
_BINS = 40


def latent_frequencies(table: pd.DataFrame, *, dialogues: int, tokens: int) -> go.Figure:
    """Draw how many latents are active at which share of tokens (log axis); silent ones are counted in the note.

    Args:
        table: one row per latent (`LatentStatistics.to_frame`).
        dialogues: how many dialogues were read.
        tokens: how many tokens were read.

    Raises:
        ValueError: if a column is missing or empty, or no latent is ever active.
    """
    rows = require(table, COLUMNS, what=WHAT)
    live = rows["frequency"].to_numpy(dtype=float)
    silent = int((live == 0).sum())
    live = live[live > 0]
    if not len(live):
        raise MissingDataError(f"{WHAT}: none of the {len(rows)} latents is ever active")
    low, high = float(np.log10(live.min())), float(np.log10(live.max()))
    counts, edges = np.histogram(np.log10(live), bins=_BINS, range=(low, high if high > low else low + 0.1))
    style = SERIES_STYLES[1]
    figure = new_figure("How often latents are active")
    figure.add_trace(
        go.Bar(
            x=(10 ** ((edges[:-1] + edges[1:]) / 2)).tolist(),
            y=counts.tolist(),
            width=np.diff(10**edges).tolist(),
            marker={"color": style.colour},
            hovertext=[
                f"{count} latents active at {10**first:.2%} to {10**last:.2%} of tokens"
                for count, first, last in zip(counts, edges[:-1], edges[1:], strict=True)
            ],
            hoverinfo="text",
            showlegend=False,
        )
    )
    figure.update_xaxes(type="log", title_text="share of tokens at which a latent is active", tickformat="~%")
    figure.update_yaxes(title_text="latents")
    note = (
        f"n = {counted(tokens)} tokens of {counted(dialogues)} dialogues; {counted(silent)} of {counted(len(rows))} "
        "latents were never active and are not drawn. All latents are counted, so there is no interval."
    )
    return keys_below(figure, note=note, keys=False)
