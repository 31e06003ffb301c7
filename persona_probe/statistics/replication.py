"""When a direction counts as replicated: decided on development questions, before any shift is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LEAST_COSINE = 0.5
"""Directions from two halves of the questions must be at least so alike, on average."""
CHANCE = 0.5
"""The lower end of the held-out AUROC's interval must lie above chance."""
LARGEST_P = 0.025
"""At most this share of exchanges of whole questions' labels may stand out as much, at the best of all layers."""
REPLICATES, FAILS, UNCHECKED = "replicates", "does not replicate", "not checked"
"""What tables say of a direction at a layer (column ``replication``)."""
RELIABILITY = ("split_half_cosine", "held_out_auroc", "held_out_auroc_low", "held_out_auroc_high")
"""The columns of a direction's reliability."""


def gate(figures: Mapping[str, Any], layers: int, *, split: bool = True) -> list[bool]:
    """``(layer,)`` whether a direction with such figures replicates at each layer.

    All of these: ``split_half_cosine`` >= 0.5; ``held_out_auroc_low`` > 0.5; ``shuffled_p_corrected`` <= 0.025. The
    last is about the labels and corrected for the number of layers, so that meaningless labels pass at *any* layer with
    a chance of at most 2.5 %; without it the best of 30 layers of noise passes the other two more often.

    Args:
        figures: the card's checks; a list with a number per layer, or None where there are too few data, which fails.
        layers: number of layers.
        split: whether the direction was found in these data, so that it must agree on halves.
    """
    names = (*(("split_half_cosine",) if split else ()), "held_out_auroc_low", "shuffled_p_corrected")
    if any(figures[name] is None for name in names):
        return [False] * layers
    cosines = figures["split_half_cosine"] if split else [1.0] * layers
    numbers = zip(cosines, figures["held_out_auroc_low"], figures["shuffled_p_corrected"], strict=True)
    return [bool(cosine >= LEAST_COSINE and low > CHANCE and p <= LARGEST_P) for cosine, low, p in numbers]


def reliability(row: Mapping[Any, Any]) -> str:
    """The reliability of a direction at a layer in words, from the columns of `Replication.at`.

    Where it does not replicate although both figures are large enough, that is due to the exchanged labels (`gate`).
    """
    parts = []
    if not math.isnan(row["split_half_cosine"]):
        parts.append(f"split-half cosine {row['split_half_cosine']:.2f}")
    if not math.isnan(row["held_out_auroc"]):
        ends = row["held_out_auroc_low"], row["held_out_auroc_high"]
        interval = "" if math.isnan(ends[0]) else f" [{ends[0]:.2f}, {ends[1]:.2f}]"
        parts.append(f"held-out AUROC {row['held_out_auroc']:.2f}{interval}")
    alike = math.isnan(row["split_half_cosine"]) or row["split_half_cosine"] >= LEAST_COSINE
    if row.get("replication") == FAILS and alike and row["held_out_auroc_low"] > CHANCE:
        parts.append("but not significantly different from exchanged labels")
    return ", ".join(parts) or "no split-half cosine and no held-out AUROC"
