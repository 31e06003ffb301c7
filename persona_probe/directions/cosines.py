"""How far directions agree, beside how far directions agree by chance."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.effect_sizes import cosine
from persona_probe.statistics.nulls import matched_random_directions


def cosine_table(
    directions: Mapping[str, Direction],
    reference: Activations | None = None,
    *,
    n_random: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Cosines between all pairs, layer by layer.

    Args:
        directions: by name, of the same layers.
        reference: activations with whose covariance random directions are drawn for the null; None leaves it out.
        n_random: how many.
        seed: of them.

    Returns:
        One row a pair and layer: ``layer``, ``first``, ``second``, ``cosine``; with ``reference`` also ``null_high``,
        the 97.5 % quantile of ``|cosine|`` between the first direction and random ones.

    Raises:
        PersonaProbeError: for fewer than two directions, or such as do not belong together.
    """
    if len(directions) < 2:
        raise PersonaProbeError(f"cosines are between directions; got {len(directions)}: give at least two, by name")
    first = next(iter(directions.values()))
    for other in directions.values():
        first.check_together(other)
    rows = []
    for column, layer in enumerate(first.layers):
        random = None if reference is None else matched_random_directions(reference.at(layer), n_random, seed)
        for one, two in itertools.combinations(directions, 2):
            pair = [directions[name].vectors[column : column + 1] for name in (one, two)]
            row = {"layer": layer, "first": one, "second": two, "cosine": float(cosine(*pair)[0])}
            if random is not None:
                along = directions[one].units()[column]
                row["null_high"] = float(np.quantile(np.abs(random @ along), 0.975))
            rows.append(row)
    return pd.DataFrame(rows).sort_values(["first", "second", "layer"], ignore_index=True, kind="stable")
