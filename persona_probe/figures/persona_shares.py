"""Which personas speak, before and after: whether only one of them spread."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.em_rates import MODELS
from persona_probe.figures.forest import ForestRow, forest
from persona_probe.figures.required import measured, require

COLUMNS = ("model", "persona", "share", "low", "high", "n")


def persona_shares(table: pd.DataFrame, *, models: tuple[str, ...] = MODELS) -> go.Figure:
    """Draw the share of answers each persona gives, by model, with 95 % intervals.

    Args:
        table: one row per model and persona (the study's ``persona_shares`` table).
        models: which models to draw, in this order.

    Raises:
        ValueError: if a column is missing or empty.
    """
    what = "persona shares"
    rows = measured(require(table, COLUMNS, what=what), "share", what=what)
    rows = measured(rows[rows["model"].isin(models)], "share", what=what)
    # The persona that spread most is what the reader looks for, so it comes first.
    peak = rows.groupby("persona")["share"].max()
    spread = rows[rows["model"] == "after"].groupby("persona")["share"].max().reindex(peak.index, fill_value=0.0)
    groups = []
    for persona in spread.sort_values(ascending=False, kind="stable").index:
        by_model = rows[rows["persona"] == persona].set_index("model")
        groups.append(
            [
                ForestRow(
                    model=model,
                    label=f"{persona} · {model}",
                    value=float(by_model.loc[model, "share"]),
                    low=float(by_model.loc[model, "low"]),
                    high=float(by_model.loc[model, "high"]),
                    n=float(by_model.loc[model, "n"]),
                )
                for model in models
                if model in by_model.index
            ]
        )
    return forest(groups, title="Who speaks: persona shares", axis_title="share of answers")
