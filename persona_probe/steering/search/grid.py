"""What a search for the best steering tries for each goal; no torch, so that it is known before a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from persona_probe.errors import NUMBER, PersonaProbeError, check_types

Goal = Literal["suppress", "induce"]
GOALS: tuple[str, ...] = get_args(Goal)
Searched = Literal["clamp", "add", "ablate", "cap"]
SEARCHED: tuple[str, ...] = get_args(Searched)
"""The kinds of intervention that can be searched over."""


@dataclass(frozen=True)
class Grid:
    """What a search tries for each goal.

    Attributes:
        kinds: ``clamp``, ``add``, ``ablate``, ``cap``.
        suppress_fractions: for ``clamp``: where the target is on the way from the base's mean projection (0) to the
            trait's (1); below 0 it is beyond the base's.
        induce_fractions: the same, to induce.
        suppress_strengths: for ``add``: factors of the raw vector.
        induce_strengths: the same, to induce.
        percentiles: for ``cap``: percentiles of the base's projections, on the side of the trait (to induce: of the
            trait's projections).

    >>> Grid(kinds="clamp", suppress_fractions=(0.0, -0.5)).count(n_layers=5, goal="suppress")
    10
    """

    kinds: tuple[str, ...] = ("clamp", "add", "ablate", "cap")
    suppress_fractions: tuple[float, ...] = (0.25, 0.0, -0.25, -0.5)
    induce_fractions: tuple[float, ...] = (1.0, 1.5, 2.0, 2.5)
    suppress_strengths: tuple[float, ...] = (-0.5, -0.75, -1.0)
    induce_strengths: tuple[float, ...] = (0.5, 0.75, 1.0)
    percentiles: tuple[float, ...] = (25.0, 50.0, 75.0)

    def __post_init__(self) -> None:
        """Turn single values into tuples, and raise for kinds that cannot be searched over."""
        for name in fields(self):
            given = getattr(self, name.name)
            if isinstance(given, str | int | float | np.number):
                object.__setattr__(self, name.name, (given,))
        check_types(kinds=(self.kinds, [str]))
        for name in fields(self)[1:]:
            check_types(**{name.name: (getattr(self, name.name), [NUMBER])})
        for kind in self.kinds:
            if kind not in SEARCHED:
                raise PersonaProbeError(f"a search cannot try kind={kind!r}: choose among {', '.join(SEARCHED)}")
        if not self.kinds:
            raise PersonaProbeError("a search needs at least one kind")

    def count(self, n_layers: int, goal: Goal) -> int:
        """The number of interventions that `candidates` gives for ``n_layers`` layers."""
        suppress = goal == "suppress"
        each = {
            "clamp": n_layers * len(self.suppress_fractions if suppress else self.induce_fractions),
            "add": (n_layers + (n_layers > 2)) * len(self.suppress_strengths if suppress else self.induce_strengths),
            "ablate": n_layers,
            "cap": n_layers * len(self.percentiles),
        }
        return sum(each[kind] for kind in self.kinds)
