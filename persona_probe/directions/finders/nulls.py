"""Nulls: finders of random directions, and of directions from shuffled labels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from persona_probe.directions.finders.poles import Poles
from persona_probe.statistics.nulls import isotropic_directions, matched_random_directions


def random(poles: Poles, *, seed: int) -> Float[np.ndarray, "layer d_model"]:
    """A direction uniform on the sphere at every layer, as long as the mean difference."""
    n, width = poles.difference().shape
    return _as_long_as_difference(isotropic_directions(n, width, seed), poles)


def random_matched(poles: Poles, *, seed: int) -> Float[np.ndarray, "layer d_model"]:
    """A Gaussian direction with the negative pole's covariance, as long as the mean difference."""
    drawn = [
        matched_random_directions(poles.negative.values[:, column], 1, seed + column)[0]
        for column in range(len(poles.layers))
    ]
    return _as_long_as_difference(np.stack(drawn), poles)


def shuffled_labels(poles: Poles, *, seed: int) -> Float[np.ndarray, "layer d_model"]:
    """The mean difference of shuffled poles (`Poles.shuffled`), as long as the real one."""
    drawn = poles.shuffled(np.random.default_rng(seed)).difference()
    return _as_long_as_difference(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), poles)


def _as_long_as_difference(
    units: Float[np.ndarray, "layer d_model"], poles: Poles
) -> Float[np.ndarray, "layer d_model"]:
    return np.asarray(units * np.linalg.norm(poles.difference(), axis=1, keepdims=True))
