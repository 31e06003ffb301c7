"""The finder ``logistic``: the normal of a logistic probe."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from persona_probe.directions.finders.finder import at_mean_difference
from persona_probe.directions.finders.poles import Poles
from persona_probe.linear.fit import fit_linear


def logistic(poles: Poles, *, C: float = 1.0) -> Float[np.ndarray, "layer d_model"]:
    """The normal of an L2-regularised logistic probe on standardised features, in the raw basis.

    A filter, as `lda` is.

    Args:
        poles: activations with and without the trait.
        C: inverse strength of the penalty (scikit-learn's).
    """
    return at_mean_difference(fit_linear(*poles.stacked(), "logistic", C=C).weights[0], poles)
