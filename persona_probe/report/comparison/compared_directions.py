"""How far the persona directions of several runs agree."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from persona_probe.directions.direction import Direction
from persona_probe.directions.family import known_family
from persona_probe.errors import PersonaProbeError
from persona_probe.report.comparison.compared_run import ComparedRun
from persona_probe.statistics.effect_sizes import cosine

NAMES = {
    "contrast-of-context": "contrast of context",
    "fine-tuning-shift": "fine-tuning shift",
    "answers": "answers: misaligned - aligned",
}
"""The directions that a run may have in ``directions/``, and their names in its tables."""
COLUMNS = ("layer", "first", "second", "cosine", "null_high")


def direction_cosines(runs: Sequence[ComparedRun]) -> tuple[pd.DataFrame, list[str]]:
    """Cosines between directions with the same name of every two runs, and why some are missing.

    Directions can only be compared on the same weights, or on weights with the same origin, which their cards give.

    Args:
        runs: two runs or more.

    Returns:
        A table with one row per pair and layer, as `figures.cosines` draws it; ``null_high`` is the largest that the
        runs measured for random directions with the activations' covariance. And sentences.
    """
    rows, reasons = [], []
    for first, second in itertools.combinations(runs, 2):
        shared = 0
        for file, name in NAMES.items():
            one, other = _load(first, file), _load(second, file)
            if one is None or other is None:
                continue
            shared += 1
            why = _why_not(one, other)
            if why is not None:
                reasons.append(f"{name}, {first.name} and {second.name}: {why}.")
                continue
            rows += _rows(first, second, name, one, other)
        if not shared:
            reasons.append(f"{first.name} and {second.name} have no direction with the same name.")
    return pd.DataFrame(rows, columns=list(COLUMNS)), reasons


def _load(run: ComparedRun, name: str) -> Direction | None:
    folder = run.record.directory / "directions"
    if not (folder / f"{name}.json").is_file():
        return None
    try:
        return Direction.load(folder / name)
    except PersonaProbeError:
        return None


def _why_not(one: Direction, other: Direction) -> str | None:
    if not set(known_family(one.card)) & set(known_family(other.card)):
        return "found on models that are not known to be related"
    if one.vectors.shape[1] != other.vectors.shape[1]:
        return f"widths {one.vectors.shape[1]} and {other.vectors.shape[1]}"
    return None if set(one.layers) & set(other.layers) else "no layer in common"


def _rows(
    first: ComparedRun, second: ComparedRun, name: str, one: Direction, other: Direction
) -> list[dict[str, object]]:
    shared = sorted(set(one.layers) & set(other.layers))
    values = cosine(one.select(shared).vectors, other.select(shared).vectors)
    return [
        {
            "layer": layer,
            "first": f"{name}, {first.name}",
            "second": second.name,
            "cosine": float(value),
            "null_high": _null((first, second), name, layer),
        }
        for layer, value in zip(shared, np.atleast_1d(values), strict=True)
    ]


def _null(runs: Sequence[ComparedRun], name: str, layer: int) -> float:
    known = []
    for run in runs:
        table = run.record.tables.get("direction_cosines", pd.DataFrame())
        if {"layer", "first", "second", "null_high"} <= set(table):
            rows = table[(table["layer"] == layer) & ((table["first"] == name) | (table["second"] == name))]
            known += rows["null_high"].dropna().tolist()
    return max(known, default=float("nan"))
