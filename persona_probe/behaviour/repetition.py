"""How repetitive a text is: the variety of its tokens, and the part of it that goes round in circles."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool

WINDOW = 50
"""Tokens over which distinct ones are counted: longer texts repeat common words more often, however fluent they are."""
TIMES = 3
"""How often a phrase must stand in a row to be a loop (Holtzman et al. 2020)."""


def distinct_share(tokens: Sequence[Hashable]) -> float:
    """The share of different tokens: distinct-1 (Li et al. 2016, "A diversity-promoting objective function").

    A text of more than `WINDOW` tokens gets the mean over all windows of that many (the moving-average type-token
    ratio of Covington and McFall 2010), so that a long answer is not called repetitive because it is long.

    Args:
        tokens: one or more tokens.

    >>> distinct_share("the cat sat on the mat".split())
    0.8333333333333334
    """
    width = min(len(tokens), WINDOW)
    windows = [len(set(tokens[start : start + width])) for start in range(len(tokens) - width + 1)]
    return float(np.mean(windows)) / width


def in_loops(tokens: Sequence[Hashable]) -> Bool[np.ndarray, "... token"]:
    """Which tokens stand in a loop: a phrase of any length that stands `TIMES` times in a row, or more.

    After Holtzman et al. 2020, "The curious case of neural text degeneration", who count texts that end in a phrase
    of at least two tokens, three times or more. The last time may be cut off, as where an answer reaches its longest
    length.

    >>> in_loops("so we wait and wait and wait and go".split()).tolist()
    [False, False, True, True, True, True, True, True, False]
    """
    codes = np.unique(np.array([hash(token) for token in tokens]), return_inverse=True)[1]
    looping = np.zeros(len(codes), dtype=bool)
    for period in range(1, len(codes) // TIMES + 1):
        again = np.r_[False, codes[period:] == codes[:-period], False]
        starts, stops = (np.flatnonzero(step) for step in (~again[:-1] & again[1:], again[:-1] & ~again[1:]))
        for start, stop in zip(starts, stops, strict=True):
            if stop - start >= (TIMES - 1) * period:
                looping[start : stop + period] = True
    return looping


def ends_in_loop(tokens: Sequence[Hashable]) -> bool:
    """Whether a text's last tokens stand in a loop (`in_loops`).

    >>> ends_in_loop("no no no".split()), ends_in_loop("no no no more".split())
    (True, False)
    """
    return bool(in_loops(tokens)[-1])
