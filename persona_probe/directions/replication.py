"""Whether a direction replicates, layer by layer, as its card says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.statistics.replication import FAILS, RELIABILITY, REPLICATES, UNCHECKED, reliability

HOW_TO_CHECK = "direction.checked_on(positive, negative) checks it on your own poles"
NO_LAYER = "no layer at which this direction replicates"
"""The verdict of a direction that replicates nowhere."""


@dataclass(frozen=True)
class Replication:
    """Whether a direction replicates, from its card.

    Attributes:
        layers: the direction's layers.
        checks: the card's checks; None if it has none.
        why: why there are no checks, or too few data for them; empty if nothing is lacking.

    >>> checks = {"split_half_cosine": [-0.7, 0.9], "held_out_auroc": [0.4, 0.8], "held_out_auroc_low": [0.3, 0.7],
    ...           "held_out_auroc_high": [0.5, 0.9], "shuffled_p_corrected": [0.8, 0.01], "replicates": [False, True]}
    >>> found = Replication((2, 3), checks)
    >>> found.layers_that_replicate, found.at(2)["replication"]
    ([3], 'does not replicate')
    >>> found.sentence()
    'replicates at layer 3 of 2 layers (split-half cosine 0.90, held-out AUROC 0.80 [0.70, 0.90])'
    """

    layers: tuple[int, ...]
    checks: Mapping[str, Any] | None
    why: str = ""

    @classmethod
    def of_card(cls, layers: Sequence[int], card: Mapping[str, Any]) -> Replication:
        """What a direction's card says."""
        checks = card.get("checks")
        if not checks or checks.get("replicates") is None:
            return cls(tuple(layers), None, card.get("unchecked") or "its card has no checks")
        return cls(tuple(layers), checks, checks.get("unchecked") or "")

    @property
    def checked(self) -> bool:
        """Whether it was checked; if not, nothing is known."""
        return self.checks is not None

    @property
    def layers_that_replicate(self) -> list[int]:
        """The layers at which it replicates; none if it was not checked."""
        if self.checks is None:
            return []
        return [layer for layer, passed in zip(self.layers, self.checks["replicates"], strict=True) if passed]

    @property
    def most_alike(self) -> int:
        """The layer with the largest split-half cosine (held-out AUROC, if it cannot be split; the first, if unknown).

        For analyses that need one layer where none replicates.
        """
        for name in ("split_half_cosine", "held_out_auroc"):
            figures = (self.checks or {}).get(name)
            if figures is not None:
                return self.layers[max(range(len(self.layers)), key=lambda place: figures[place])]
        return self.layers[0]

    def at(self, layer: int) -> dict[str, Any]:
        """The columns of tables of shifts: whether it replicates at a layer, and its reliability (NaN if unknown)."""
        place, checks = self.layers.index(layer), self.checks or {}
        numbers = {name: math.nan if checks.get(name) is None else float(checks[name][place]) for name in RELIABILITY}
        status = UNCHECKED if self.checks is None else REPLICATES if checks["replicates"][place] else FAILS
        return {"replication": status, **numbers}

    def sentence(self) -> str:
        """Where it replicates, with the numbers of the best such layer; or that it does nowhere, or was not checked."""
        if self.checks is None:
            return f"replication not checked ({self.why}; {HOW_TO_CHECK})"
        layers = self.layers_that_replicate
        best = max(layers, key=lambda layer: self.at(layer)["held_out_auroc"]) if layers else self.most_alike
        numbers = reliability(self.at(best))
        if not layers:
            why = f"; {self.why}" if self.why else ""
            return f"{NO_LAYER} (of {len(self.layers)} the best is layer {best}: {numbers}{why})"
        of = f" of {len(self.layers)} layers" if len(self.layers) > 1 else ""
        at = f"layer {best}: " if len(layers) > 1 else ""
        return f"replicates at {listed_layers(layers)}{of} ({at}{numbers})"


def listed_layers(layers: Sequence[int]) -> str:
    """Layer numbers in words, neighbours together.

    >>> listed_layers([3, 4, 5, 9]), listed_layers([3])
    ('layers 3-5, 9', 'layer 3')
    """
    starts = [layer for place, layer in enumerate(layers) if place == 0 or layers[place - 1] != layer - 1]
    ends = [layer for place, layer in enumerate(layers) if place + 1 == len(layers) or layers[place + 1] != layer + 1]
    parts = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
    return f"layer{'s' * (len(layers) > 1)} {', '.join(parts)}"
