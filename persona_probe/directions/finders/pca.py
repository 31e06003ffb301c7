"""The finder ``pca``: a principal component of paired differences."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from persona_probe.directions.finders.finder import at_mean_difference
from persona_probe.directions.finders.poles import Poles


def difference_components(poles: Poles, k: int) -> Float[np.ndarray, "layer k d_model"]:
    """The ``k`` orthonormal directions that hold most of the paired differences' squared length, largest first.

    Differences are not centred, since what they have in common is looked for. Centring after random signs (Zou et al.
    2023, "Representation engineering", section 3.1) amounts to the same.
    """
    differences = poles.differences().astype(np.float64)
    return np.stack(
        [np.linalg.svd(differences[:, column], full_matrices=False)[2][:k] for column in range(len(poles.layers))]
    )


def pca(poles: Poles) -> Float[np.ndarray, "layer d_model"]:
    """The first principal component of the differences between pairs, signed and scaled by the mean difference.

    The linear artificial tomography of Zou et al. (2023, section 3.1), and repeng's default.

    Raises:
        PersonaProbeError: if the poles are not the same dialogues read twice.
    """
    return at_mean_difference(difference_components(poles, 1)[:, 0], poles)
