"""What a search for the best steering tries for each goal; no torch, so that it is known before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types

Goal = Literal["suppress", "induce"]
GOALS: tuple[str, ...] = get_args(Goal)
Searched = Literal["clamp", "add", "ablate", "cap"]
SEARCHED: tuple[str, ...] = get_args(Searched)
"""The kinds of intervention that can be searched over."""
DOSED = ("clamp", "add")
"""The kinds whose relative dose is doubled until the model breaks."""
REFINED = 3
"""How many doses are tried between the doubled ones, next to the dose at which the model breaks."""


MOST_LAYERS = 10
"""How many layers are tried by default, evenly spaced."""


def evenly(layers: Sequence[int], most: int = MOST_LAYERS) -> list[int]:
    """At most ``most`` of some layers, evenly spaced, each in the middle of its part.

    >>> evenly(range(5)), evenly(range(30))
    ([0, 1, 2, 3, 4], [1, 4, 7, 10, 13, 16, 19, 22, 25, 28])
    """
    if len(layers) <= most:
        return list(layers)
    return [layers[int((part + 0.5) * len(layers) / most)] for part in range(most)]


@dataclass(frozen=True)
class Grid:
    """What a search tries for each goal, in units that mean the same at every layer of every model.

    A *relative dose* is the length of the change divided by the length of the stream, ``||change|| / ||h||``. At each
    layer the dose is doubled from ``smallest_dose`` until the KL to the unsteered model, on its own answers, exceeds
    the largest budget; then doses between the last ones are tried. All of that is read in forward passes. Only the
    settings that move the behaviour furthest within each budget are then sampled.

    Attributes:
        kinds: ``clamp``, ``add``, ``ablate``, ``cap``. The first is tried at every layer, the others at the layers at
            which it worked best.
        budgets: KL to the unsteered model, in nats per token. Beyond the largest the model counts as broken; within
            each, the best settings of every kind are sampled.
        smallest_dose: the first relative dose of ``clamp`` and ``add``.
        largest_dose: the last one, if the model does not break before.
        percentiles: for ``cap``: percentiles of the base's projections, on the side of the trait (to induce: of the
            trait's projections).
        followed: at how many layers the kinds after the first are tried.
        texts: how many questions are read with an answer of each side, in every forward pass.

    >>> grid = Grid(kinds="clamp")
    >>> grid.doses
    (0.0625, 0.125, 0.25, 0.5, 1.0)
    >>> grid.n_read(n_layers=10), grid.n_sampled
    (90, 9)
    """

    kinds: tuple[str, ...] = ("clamp", "add", "ablate", "cap")
    budgets: tuple[float, ...] = (0.25, 0.5, 1.0)
    smallest_dose: float = 0.0625
    largest_dose: float = 1.0
    percentiles: tuple[float, ...] = (25.0, 50.0, 75.0)
    followed: int = 3
    texts: int = 12

    def __post_init__(self) -> None:
        """Turn single values into tuples, and raise for what cannot be searched."""
        for name in ("kinds", "budgets", "percentiles"):
            given = getattr(self, name)
            if isinstance(given, str | int | float | np.number):
                object.__setattr__(self, name, (given,))
        check_types(
            kinds=(self.kinds, [str]),
            budgets=(self.budgets, [NUMBER]),
            smallest_dose=(self.smallest_dose, NUMBER),
            largest_dose=(self.largest_dose, NUMBER),
            percentiles=(self.percentiles, [NUMBER]),
            followed=(self.followed, WHOLE),
            texts=(self.texts, WHOLE),
        )
        for kind in self.kinds:
            if kind not in SEARCHED:
                raise PersonaProbeError(f"a search cannot try kind={kind!r}: choose among {', '.join(SEARCHED)}")
        if not self.kinds:
            raise PersonaProbeError("a search needs at least one kind")
        if not self.budgets or not all(0 < budget < math.inf for budget in self.budgets):
            raise PersonaProbeError(f"budgets={self.budgets}; give nats per token above 0, such as (0.25, 0.5, 1)")
        if not 0 < self.smallest_dose <= self.largest_dose < math.inf:
            raise PersonaProbeError(
                f"smallest_dose={self.smallest_dose} and largest_dose={self.largest_dose}; give shares of the stream's "
                "norm above 0, the smaller one first"
            )
        if self.followed < 1 or self.texts < 2:
            raise PersonaProbeError(
                f"followed={self.followed} and texts={self.texts}; give 1 or more layers, and 2 or more questions"
            )

    @property
    def doses(self) -> tuple[float, ...]:
        """The relative doses, each twice the one before."""
        doublings = math.floor(math.log2(self.largest_dose / self.smallest_dose) + 1e-9)
        return tuple(self.smallest_dose * 2.0**step for step in range(doublings + 1))

    @property
    def n_sampled(self) -> int:
        """The most settings whose answers are sampled, for each goal: three for each kind and budget."""
        return 3 * len(self.kinds) * len(self.budgets)

    def n_read(self, n_layers: int) -> int:
        """The most settings that are read in forward passes, for each goal."""
        dosed = len(self.doses) + REFINED
        # A clamp is also tried at the other side's mean projection, an addition at all layers but the first.
        each = {"clamp": dosed + 1, "add": dosed, "ablate": 1, "cap": len(self.percentiles)}
        first, *others = self.kinds
        few = min(self.followed, n_layers)
        several = dosed if n_layers > 2 and "add" in self.kinds else 0
        return n_layers * each[first] + few * sum(each[kind] for kind in others) + several

    @property
    def n_rounds(self) -> int:
        """In how many rounds settings are read at most, for each goal; each reads the unsteered model once more."""
        return (len(self.kinds) + 1) * (len(self.doses) + 2)

    def n_screened(self, n_layers: int, n_random: int) -> int:
        """The most settings that a screen reads along random directions."""
        return n_layers * n_random
