"""One row of the coverage table: what is asked, in which setting, and how one data set is drawn and judged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["coverage", "size", "power"]
# no case takes much longer than this, unless that left it fewer repetitions than the second number
MOST_SECONDS, LEAST_REPETITIONS = 60.0, 300


@dataclass(frozen=True)
class Case:
    """A question that is answered by drawing many data sets.

    Attributes:
        what: the function or verdict, as users call it, such as ``pp.rate_change``.
        setting: what the data are like, in words.
        kind: ``coverage`` (does a 95 % interval contain the truth?), ``size`` (is something found where there is
            nothing? at most 5 %) or ``power`` (is it found where it is there?).
        draw: draws one data set and judges it. For ``coverage`` the interval and the truth, ``(low, high, truth)``, or
            None where no interval was given; for ``size`` and ``power`` whether it was found, or None where there was
            no answer, which counts as not found.
        why: the reason, in a sentence, if the number is meant to lie outside its range.
        cautious: the reason if a coverage is meant to lie above its range, where that is another than ``why``.
        cost: roughly how many milliseconds one draw takes; expensive ones are repeated less often.
    """

    what: str
    setting: str
    kind: Kind
    draw: Callable[[np.random.Generator], tuple[float, float, float] | bool | None]
    why: str = ""
    cost: float = 1.0
    cautious: str = ""

    @property
    def key(self) -> str:
        """What names this case among all others."""
        return f"{self.what} | {self.setting} | {self.kind}"

    @property
    def seed(self) -> int:
        """The seed of its data sets, from its name alone: it does not depend on which other cases are run."""
        return int.from_bytes(hashlib.sha256(self.key.encode()).digest()[:6], "big")

    def repetitions(self, asked: int) -> int:
        """How many data sets to draw: as many as asked, fewer if they are expensive, but not below 300 for that."""
        affordable = max(LEAST_REPETITIONS, int(MOST_SECONDS * 1000 / self.cost))
        return min(asked, affordable)
