"""How far latents are ahead of the EM rate along training, by two criteria."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.axes import new_figure
from persona_probe.figures.keys import keys_below
from persona_probe.figures.required import MissingDataError, require
from persona_probe.figures.rows import Mark, add_marks, label_rows
from persona_probe.figures.template import SERIES_STYLES
from persona_probe.figures.text import escape_markup, is_number

COLUMNS = ("latent", "criterion", "latent_step", "rate_step", "lead", "low", "high", "resolution", "note")
WHAT = "leads"
_CRITERIA = {
    "half": ("half of the change; whiskers: 95 %, bootstrap", SERIES_STYLES[0], -0.16),
    "significant": ("significantly different; no interval: it depends on the sample sizes", SERIES_STYLES[1], 0.16),
}


def latent_leads(table: pd.DataFrame, *, axis: str = "training step", n: str = "") -> go.Figure:
    """Draw each latent's lead over the EM rate; to the right of 0 the latent comes first.

    Args:
        table: one row per latent and criterion (`persona_probe.latents.lead_time`).
        axis: what the steps are.
        n: how much was read, in words.

    Raises:
        ValueError: if a column is missing or empty, or no lead is a number.
    """
    rows = require(table, COLUMNS, what=WHAT)
    if not any(map(is_number, rows["lead"])):
        notes = "; ".join(dict.fromkeys(str(note) for note in rows["note"] if note))
        raise MissingDataError(f"{WHAT}: no latent has a lead: {notes or 'the column lead holds no number'}")
    latents = list(dict.fromkeys(rows["latent"].tolist()))
    figure = new_figure("Which comes first, the latent or the EM rate")
    for criterion, (name, style, shift) in _CRITERIA.items():
        known = rows[(rows["criterion"] == criterion) & rows["lead"].notna()]
        marks = [
            Mark(
                latents.index(row["latent"]) + shift,
                row["lead"],
                row["low"],
                row["high"],
                f"latent {row['latent']}, {criterion}<br>latent at {row['latent_step']:.3g}, EM rate at "
                f"{row['rate_step']:.3g}: {row['lead']:+.3g}{_ends(row)}<br>snapshots {row['resolution']:g} apart",
                filled=_known(row),
            )
            for row in known.to_dict("records")
        ]
        add_marks(figure, marks, name, style)
    figure.add_vline(x=0.0, line_dash="dot")
    figure.update_xaxes(title_text=f"lead over the EM rate ({escape_markup(axis)})")
    label_rows(figure, [f"latent {latent}" for latent in latents])
    missing = [latent for latent in latents if rows.loc[rows["latent"] == latent, "lead"].isna().all()]
    none = f" No lead: {', '.join(f'latent {latent}' for latent in missing)}." if missing else ""
    note = (
        "Right of 0: the latent first, if the mark is filled; open: the order is not known. One training run"
        f"{f'; {escape_markup(n)}' if n else ''}.{none}"
    )
    return keys_below(figure, note=note)


def _known(row: Mapping[Any, Any]) -> bool:
    """Whether the interval excludes 0; a lead without an interval says nothing on the order of the courses."""
    return bool(row["low"] > 0 or row["high"] < 0)


def _ends(row: Mapping[Any, Any]) -> str:
    return f" [{row['low']:+.3g}, {row['high']:+.3g}]" if is_number(row["low"]) else ""
