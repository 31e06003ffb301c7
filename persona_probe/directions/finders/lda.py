"""The finder ``lda``: a whitened mean difference."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from persona_probe.directions.finders.finder import at_mean_difference
from persona_probe.directions.finders.poles import Poles
from persona_probe.linear.fit import fit_linear


def lda(poles: Poles) -> Float[np.ndarray, "layer d_model"]:
    """The mean difference times the inverse of the shrunk within-pole covariance (Ledoit and Wolf 2004).

    Fisher's discriminant; the "mass-mean probe" for independent data of Marks and Tegmark (2023, "The geometry of
    truth", section 5.1). A filter: it separates the poles best, and may differ from the difference between them.
    """
    return at_mean_difference(fit_linear(*poles.stacked(), "lda").weights[0], poles)
