"""Difference of means."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from persona_probe.activations.activations import Activations


def mean_difference(positive: Activations, negative: Activations) -> Float[np.ndarray, "layer d_model"]:
    """Mean over positive dialogues minus mean over negative ones, at every layer.

    Each dialogue counts once, however long (Chen et al. 2025, "Persona vectors", section 2.2; Soligo et al. 2025 weight
    by token).
    """
    return np.asarray(positive.values.mean(axis=0, dtype=np.float64) - negative.values.mean(axis=0, dtype=np.float64))
