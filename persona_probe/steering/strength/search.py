"""Finding where a curve first reaches a target: bracketing in steps of four, then several sections at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

START, LARGEST = 2.0**-6, 2.0**14
_SMALLEST = 2.0**-30
_CLOSE = 1e-4
"""A bracket this narrow, relative to its place, is not narrowed further: the curve jumps there."""


@dataclass
class Search:
    """A search for the smallest place above 0 at which a curve that is 0 at 0 reaches a target.

    Attributes:
        target: the value to reach, above 0.
        tolerance: how far above the target the curve may be there, as a share of it.
        points: the known points of the curve, from places to values; searches along the same curve share them.
        sections: how many points between two are asked for at once, if nothing can be guessed from their values.
        close: how narrow a bracket must be, relative to its place, to end the search.
    """

    target: float
    tolerance: float = 0.02
    points: dict[float, float] = field(default_factory=dict)
    sections: int = 3
    close: float = _CLOSE

    def bracket(self) -> tuple[float, float]:
        """The last place before the curve first reaches the target, and the first at which it does (or infinity)."""
        low = 0.0
        for place in sorted(self.points):
            if self._reaches(self.points[place]):
                return low, place
            low = place
        return low, math.inf

    @property
    def found(self) -> float | None:
        """The place, if it is known well enough; else None."""
        low, high = self.bracket()
        if math.isinf(high):
            return None
        near = self.points[high] <= self.target * (1.0 + self.tolerance)
        return high if near or high - low <= self.close * high else None

    @property
    def hopeless(self) -> bool:
        """Whether the curve stays below the target up to very large places, or exceeds it at very small ones."""
        low, high = self.bracket()
        return low >= LARGEST if math.isinf(high) else low == 0.0 and high <= _SMALLEST

    def propose(self) -> list[float]:
        """Places to measure next; none if the search is over."""
        if self.found is not None or self.hopeless:
            return []
        low, high = self.bracket()
        if math.isinf(high):
            # Only a few places beyond the known ones, since far beyond them half precision overflows.
            first, count = (START, 4) if low == 0.0 else (4.0 * low, 2)
            return [first * 4.0**step for step in range(count)]
        if low == 0.0:
            return [high / 4.0**step for step in range(1, 4)]
        guesses = self._guesses(low, high)
        # The middle halves the bracket even if the guesses are wrong.
        parts = 2 if guesses else self.sections + 1
        return sorted({*guesses, *(low + (high - low) * part / parts for part in range(1, parts))})

    def _guesses(self, low: float, high: float) -> list[float]:
        """Places of the target if the curve is a power of the place: KL grows with the square of small strengths."""
        below, above = self.points[low], self.points[high]
        if not 0.0 < below < above < math.inf:
            return []
        power = math.log(above / below) / math.log(high / low)
        # Slightly above, so that the target is reached, and on both sides, so that the bracket narrows quickly.
        aims = [self.target * (1.0 + self.tolerance * part) for part in (-2.0, 0.5, 3.0)]
        guesses = [low * (aim / below) ** (1.0 / power) for aim in aims]
        return [guess for guess in guesses if low < guess < high]

    @property
    def rises(self) -> bool:
        """Whether the measured curve, within the tolerance, does not fall before it reaches the target."""
        _, high = self.bracket()
        before = [self.points[place] for place in sorted(self.points) if place <= high]
        return all(after >= value * (1.0 - self.tolerance) for value, after in itertools.pairwise(before))

    @property
    def returns(self) -> bool:
        """Whether the measured curve is below the target again, beyond where it first reaches it."""
        _, high = self.bracket()
        return any(place > high and not self._reaches(value) for place, value in self.points.items())

    def _reaches(self, value: float) -> bool:
        # Overflow, and the share of an empty set, count as beyond the target.
        return math.isnan(value) or value >= self.target


def search_all(searches: Sequence[Search], measure: Callable[[list[tuple[int, float]]], Sequence[float]]) -> None:
    """Continue all searches until each is over, with one call of ``measure`` per round.

    Args:
        searches: the searches, which may share points.
        measure: gives the curves' values for pairs (number of a search, place).
    """
    while True:
        wanted: dict[tuple[int, float], tuple[int, float]] = {}
        for number, search in enumerate(searches):
            for place in search.propose():
                # Searches along the same curve may ask for the same place.
                wanted.setdefault((id(search.points), place), (number, place))
        if not wanted:
            return
        asked = list(wanted.values())
        for (number, place), value in zip(asked, measure(asked), strict=True):
            searches[number].points[place] = value
