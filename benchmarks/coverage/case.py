"""One row of the coverage table: what is asked, in which setting, and how one data set is drawn and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["coverage", "size", "power"]


@dataclass(frozen=True)
class Case:
    """A question that is answered by drawing many data sets.

    Attributes:
        what: the function or verdict, as users call it, such as ``pp.rate_change``.
        setting: what the data are like, in words.
        kind: ``coverage`` (does a 95 % interval contain the truth?), ``size`` (is something found where there is
            nothing? at most 5 %) or ``power`` (is it found where it is there?).
        draw: draws one data set and judges it. For ``coverage`` the interval and the truth, ``(low, high, truth)``, or
            None where no interval was given; for ``size`` and ``power`` whether it was found.
        why: the reason, in a sentence, if the number is meant to lie outside its range.
        cost: roughly how many milliseconds one draw takes; expensive ones are repeated less often in the smoke test.
    """

    what: str
    setting: str
    kind: Kind
    draw: Callable[[np.random.Generator], tuple[float, float, float] | bool | None]
    why: str = ""
    cost: float = 1.0
