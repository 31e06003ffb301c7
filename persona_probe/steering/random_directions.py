"""The null of steering: random directions, along which the stream is moved as far as along the real one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.nulls import isotropic_directions
from persona_probe.steering.interventions.intervention import Intervention


def random_directions(layers: Sequence[int], d_model: int, n: int, seed: int) -> list[Direction]:
    """Directions uniform on the sphere, drawn independently at each layer.

    Raises:
        PersonaProbeError: if ``n`` is below 0.
    """
    if n < 0:
        raise PersonaProbeError(f"{n} random directions were asked for; give 0 or more")
    if not n:
        return []
    vectors = isotropic_directions(n * len(layers), d_model, seed).reshape(n, len(layers), d_model)
    return [
        Direction(vector.astype(np.float32), tuple(layers), {"name": f"random {draw}", "finder": "given"})
        for draw, vector in enumerate(vectors)
    ]


def random_nulls(
    intervention: Intervention, layers: Sequence[int], d_model: int, n: int, seed: int
) -> list[Intervention]:
    """``intervention`` along ``n`` random directions: the same displacement (for additions, a vector of equal length).

    Args:
        intervention: an intervention of a kind that has a null.
        layers: the layers at which it acts.
        d_model: width of the stream.
        n: number of random directions.
        seed: seed of the random directions.
    """
    return [intervention.along(direction) for direction in random_directions(layers, d_model, n, seed)]
