"""A line of the table: which figure, and what it says in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        figure: its place in the JSON (``capture.vs_bare``).
        headline: it is in the README too.
        gpu_only: left out where no GPU was measured.
    """

    figure: str
    words: str
    unit: Literal["times", "share", "seconds", "megabytes", "tokens_per_second", "number"]
    headline: bool = False
    gpu_only: bool = False
