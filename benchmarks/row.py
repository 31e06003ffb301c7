"""A row of the table: a figure, and its description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        figure: its place in the JSON (``capture.vs_bare``).
        words: its description.
        unit: its unit.
        headline: whether it is in the README too.
        gpu_only: whether it is left out if no GPU was measured.
    """

    figure: str
    words: str
    unit: Literal["times", "share", "seconds", "megabytes", "tokens_per_second", "number"]
    headline: bool = False
    gpu_only: bool = False
