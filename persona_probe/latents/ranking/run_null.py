"""The null of training runs: how far a latent moves beyond all other runs, and how often a benign run goes as far."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float


def beyond_other_runs(changes: Float[np.ndarray, "run latent"]) -> Float[np.ndarray, "run latent"]:
    """How far each latent of each run moves beyond the nearest of all *other* runs, in the direction of its change.

    It is the smaller of the change and of its difference from the nearest other run's, and 0 where these two differ in
    sign (another run went further). Every run is treated alike, so that runs can be exchanged. A run by itself moves
    beyond zero.

    Args:
        changes: ``(run, latent)`` changes from before, in one unit for all runs.

    >>> import numpy as np
    >>> from persona_probe.latents.ranking.run_null import beyond_other_runs
    >>> beyond_other_runs(np.array([[3.0, -1.0], [0.5, -2.0], [0.0, 0.1]]))
    array([[2.5, 0. ],
           [0.5, 1. ],
           [0. , 0.1]])
    """
    far = np.abs(changes)
    for run, change in enumerate(changes):
        others = np.delete(changes, run, axis=0)
        if len(others):
            excess = change - np.take_along_axis(others, np.abs(change - others).argmin(axis=0)[None], axis=0)[0]
            far[run] = np.where(np.sign(change) == np.sign(excess), np.minimum(np.abs(change), np.abs(excess)), 0.0)
    return far


def p_over_runs(far: Float[np.ndarray, "run latent"]) -> Float[np.ndarray, "... latent"]:
    """``(latent,)`` the p of each latent of the first run: the share of runs in which *some* latent goes as far.

    A run's statistic is its largest ``far`` over latents, so that p is corrected for all latents (Westfall and Young
    1993, "Resampling-based multiple testing", single step), and the first run counts among the runs (Phipson and Smyth
    2010, "Permutation p-values should never be zero"). If the first run is exchangeable with the others, the chance of
    any p <= alpha is at most alpha, whatever the latents have in common. It cannot be below 1 / runs.

    Args:
        far: ``(run, latent)`` from `beyond_other_runs`.

    >>> import numpy as np
    >>> from persona_probe.latents.ranking.run_null import p_over_runs
    >>> p_over_runs(np.array([[2.5, 0.0], [0.0, 1.0], [0.0, 0.1]])).round(2)
    array([0.33, 1.  ])
    """
    furthest = far.max(axis=1, initial=0.0)
    reached: np.ndarray = (furthest[:, None] >= far[0]).mean(axis=0)
    return reached


def controls_needed(alpha: float) -> int:
    """How many controls it takes until `p_over_runs` can be as small as ``alpha``.

    >>> from persona_probe.latents.ranking.run_null import controls_needed
    >>> controls_needed(0.05)
    19
    """
    return math.ceil(1 / alpha - 1e-9) - 1
