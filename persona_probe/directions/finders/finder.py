"""The description of a finder: a function from two poles to one vector per layer, and its properties."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.directions.finders.poles import Poles
from persona_probe.errors import PersonaProbeError


@dataclass(frozen=True)
class Finder:
    """A method to find a direction.

    Attributes:
        find: called with the poles and the finder's own keyword parameters; returns ``(layer, d_model)``.
        null: whether its directions are meaningless by design.
        discriminative: whether its vectors are filters, which must be compared with others as patterns
            (`Direction.as_pattern`; Haufe et al. 2014).
        paired: whether it needs the same dialogues in both poles.
        repeats: how often the card's checks run the finder; less often if it is slow.
        weights: for a finder that is a weighted sum of rows: called as ``find``, returns what each positive and each
            negative row counts, both adding up to 1. Its null is then a product of matrices.
    """

    find: Callable[..., Float[np.ndarray, "layer d_model"]]
    null: bool = False
    discriminative: bool = False
    paired: bool = False
    repeats: int = 20
    weights: Callable[..., tuple[np.ndarray, np.ndarray]] | None = None

    def __call__(
        self, poles: Poles, name: str, parameters: Mapping[str, Any], seed: int
    ) -> Float[np.ndarray, "layer d_model"]:
        """The vectors that the finder gives; ``seed`` is only used by finders that draw at random.

        Raises:
            PersonaProbeError: for a parameter that the finder does not have.
        """
        known = self._keywords()
        if unknown := sorted(set(parameters) - set(known)):
            names = ", ".join(sorted(set(known) - {"seed"})) or "none"
            raise PersonaProbeError(f"finder {name!r} has no parameter {unknown[0]!r}; it has: {names}")
        return self.find(poles, **parameters, **({"seed": seed} if "seed" in known else {}))

    def resolved(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The given parameters, and the finder's defaults for the others."""
        return {name: item.default for name, item in self._keywords().items() if name != "seed"} | dict(parameters)

    def _keywords(self) -> dict[str, inspect.Parameter]:
        parameters = inspect.signature(self.find).parameters
        return {name: item for name, item in parameters.items() if item.kind is item.KEYWORD_ONLY}


def at_mean_difference(
    directions: Float[np.ndarray, "layer d_model"], poles: Poles
) -> Float[np.ndarray, "layer d_model"]:
    """``directions`` with the sign and length of the mean difference along them.

    Steering strength 1 thereby means one mean difference, whatever the finder.
    """
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(units * np.einsum("ld,ld->l", units, poles.difference())[:, None])
