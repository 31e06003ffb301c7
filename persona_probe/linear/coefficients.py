"""What a fit returns: weights and intercepts for features as they were given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Coefficients:
    """Linear classifiers, one for each problem and layer, in raw-feature space.

    Attributes:
        weights: ``(problem, layer, d)``, float64.
        intercept: ``(problem, layer)``, float64.
    """

    weights: Float[np.ndarray, "problem layer d"]
    intercept: Float[np.ndarray, "problem layer"]

    def decision(self, values: Float[np.ndarray, "row layer d"]) -> Float[np.ndarray, "problem row layer"]:
        """``w . x + b`` of every row under every problem's classifier, float64."""
        columns = [
            values[:, layer].astype(np.float64) @ self.weights[:, layer].T + self.intercept[:, layer]
            for layer in range(values.shape[1])
        ]
        return np.ascontiguousarray(np.stack(columns, axis=2).transpose(1, 0, 2))
