"""How much of one layer's subspace is contained in another layer's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.matrix import Matrix, heatmap
from persona_probe.figures.required import measured, require

COLUMNS = ("first", "second", "overlap", "chance")
WHAT = "subspace"


def subspace(table: pd.DataFrame, *, k: int) -> go.Figure:
    """Draw the overlap of every two layers' subspaces: the mean squared cosine of their principal angles.

    Args:
        table: one row per pair of layers, ``first`` and ``second`` (`Subspace.to_frame`).
        k: number of dimensions of the subspace.

    Raises:
        ValueError: if a column is missing or empty.
    """
    rows = measured(require(table, COLUMNS, what=WHAT), "overlap", what=WHAT)
    square = rows.pivot_table(index="first", columns="second", values="overlap")
    names = [str(layer) for layer in square.index]
    values, chance = square.to_numpy(dtype=float), float(rows["chance"].iloc[0])
    hover = [
        [f"layers {one} and {two}: {values[i, j]:.3f}" for j, two in enumerate(names)] for i, one in enumerate(names)
    ]
    return heatmap(
        Matrix(names, names, values, hover, np.zeros(values.shape, dtype=bool)),
        title=f"Subspace of {k} dimensions across layers",
        note=f"Mean squared cosine of the principal angles, 1 on the diagonal; two random subspaces have {chance:.3f} "
        "on average. Single numbers have no interval.",
        quantity="overlap",
        middle=0.0,
        ends=(0.0, 1.0),
        axes=("layer (output of block, counted from 0)", "layer"),
    )
