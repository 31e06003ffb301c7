"""The finder ``persona-axis``: from the mean of many roles to the default persona."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from persona_probe.directions.finders.poles import Poles
from persona_probe.errors import PersonaProbeError


def persona_axis(poles: Poles, *, role: str = "role") -> Float[np.ndarray, "layer d_model"]:
    """The default persona's mean minus the mean of the role means, in which every role counts once.

    "The assistant axis" (Lu et al. 2026): positive is the default persona, negative contains many roles.

    Args:
        poles: positive = default persona, negative = roles.
        role: the column of the negative pole's table that names the role.

    Raises:
        PersonaProbeError: if that column is missing, or names fewer than two roles.
    """
    table = poles.negative.table
    if role not in table or table[role].nunique() < 2 or table[role].isna().any():
        raise PersonaProbeError(
            f"the persona axis needs the column {role!r} in the negative pole's table, naming at least two roles; "
            f"it has {', '.join(map(str, table.columns))}"
        )
    of_roles = persona_axis_weights(poles, role=role)[1]
    default = poles.positive.values.mean(axis=0, dtype=np.float64)
    return np.asarray(default - np.einsum("n,nld->ld", of_roles, poles.negative.values))


def persona_axis_weights(
    poles: Poles, *, role: str = "role"
) -> tuple[Float[np.ndarray, "... dialogue"], Float[np.ndarray, "... other"]]:
    """What each positive and each negative dialogue counts in `persona_axis`; both add up to 1."""
    roles = poles.negative.table[role]
    default = np.full(len(poles.positive), 1.0 / len(poles.positive))
    return default, 1.0 / (roles.map(roles.value_counts()).to_numpy(dtype=np.float64) * roles.nunique())
