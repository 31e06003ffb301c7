"""Principal component of paired differences."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from persona_probe.directions.finders.finder import at_mean_difference
from persona_probe.directions.finders.poles import Poles


def difference_components(poles: Poles, k: int) -> Float[np.ndarray, "layer k d_model"]:
    """The ``k`` directions with most of the paired differences' squared length, orthonormal, largest first.

    Differences are not centred: what they share is what is looked for. That is also what centring after random signs
    (Zou et al. 2023, "Representation engineering", section 3.1) comes to.
    """
    differences = poles.differences().astype(np.float64)
    found = [np.linalg.svd(differences[:, column], full_matrices=False)[2][:k] for column in range(len(poles.layers))]
    return np.stack(found)


def pca(poles: Poles) -> Float[np.ndarray, "layer d_model"]:
    """First principal component of the differences between pairs, signed and scaled by the mean difference.

    The linear artificial tomography of Zou et al. (2023, section 3.1), and repeng's default.

    Raises:
        PersonaProbeError: if the poles are not the same dialogues read twice.
    """
    return at_mean_difference(difference_components(poles, 1)[:, 0], poles)
