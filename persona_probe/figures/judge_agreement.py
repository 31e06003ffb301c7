"""What two judges call the same answers: a table of counts in colour."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.matrix import Matrix, heatmap
from persona_probe.figures.required import MissingDataError
from persona_probe.figures.text import counted, escape_markup, percent

WHAT = "judge agreement"


def judge_agreement(counts: pd.DataFrame, *, definition: str) -> go.Figure:
    """Draw the shares of each category of the first judge (rows) that the second puts into each category (columns).

    Args:
        counts: number of answers, categories of the first judge as the index and of the second as columns; their names
            are the judges' (`persona_probe.behaviour.JudgeAgreement.confusion`).
        definition: the EM rate by which answers are misaligned or incoherent.

    Raises:
        ValueError: if there is no answer.
    """
    if counts.empty or not counts.to_numpy().sum():
        raise MissingDataError(f"{WHAT}: the table of counts holds no answer")
    counts = counts[counts.sum(axis=1) > 0]
    numbers = counts.to_numpy(dtype=float)
    totals = numbers.sum(axis=1, keepdims=True)
    shares = numbers / totals
    first, second = (escape_markup(str(name)) for name in (counts.index.name, counts.columns.name))
    hover = [
        [
            f"{first}: {row}<br>{second}: {column}<br>{counted(numbers[i, j])} of {counted(totals[i, 0])} "
            f"({percent(float(shares[i, j]))})"
            for j, column in enumerate(counts.columns)
        ]
        for i, row in enumerate(counts.index)
    ]
    matrix = Matrix(
        rows=[f"{row} (n = {counted(total)})" for row, total in zip(counts.index, totals[:, 0], strict=True)],
        columns=[str(column) for column in counts.columns],
        values=shares,
        hover=hover,
        unsure=np.zeros(numbers.shape, dtype=bool),
        intervals=[[counted(number) for number in row] for row in numbers],
    )
    return heatmap(
        matrix,
        title="What two judges call the same answers",
        note=(
            f"Share of each row, with the number of answers below it; misaligned and incoherent by {definition}. "
            f"Refusal and failed: without a score. n = {counted(numbers.sum())} answers."
        ),
        quantity="share of row",
        middle=0.0,
        ends=(0.0, 1.0),
        axes=(second, first),
    )
