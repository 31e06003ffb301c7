"""A linear probe of one feature matrix, as a scikit-learn classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from persona_probe.errors import PersonaProbeError
from persona_probe.linear.fit import fit_linear


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear classifier of two classes that works wherever scikit-learn's do (pipelines, grid searches).

    ``fit`` takes no groups into account: use `cross_validate_probe` for a figure that can be reported.

    Attributes:
        classes_: the two classes; larger decision values favour the second.
        coef_: ``(1, d)`` weights for raw features.
        intercept_: ``(1,)``.

    Examples:
        >>> probe = LinearProbe("ridge").fit([[0.0], [1.0], [3.0], [4.0]], ["good", "good", "bad", "bad"])
        >>> probe.classes_, probe.predict([[0.5], [3.5]])
        (array(['bad', 'good'], dtype='<U4'), array(['good', 'bad'], dtype='<U4'))
    """

    def __init__(
        self, kind: str = "logistic", C: float = 1.0, standardize: bool = True, device: str | None = None
    ) -> None:
        """Settings; see `persona_probe.linear.fit.fit_linear`."""
        self.kind, self.C, self.standardize, self.device = kind, C, standardize, device

    def fit(self, X: Any, y: Any) -> Self:
        """The probe, fitted to ``X`` ``(row, d)`` and labels ``y`` of two classes.

        Raises:
            PersonaProbeError: for any other shape, type or number of classes (as scikit-learn's classifiers do).
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2)
        check_classification_targets(y)
        target = type_of_target(y, input_name="y", raise_unknown=True)
        if target != "binary":
            raise PersonaProbeError(f"Only binary classification is supported. The type of the target is {target}.")
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            raise PersonaProbeError(f"LinearProbe needs two classes; y holds one class only, {self.classes_[0]!r}")
        fitted = fit_linear(
            X[:, None], codes == 1, self.kind, C=self.C, standardize=self.standardize, device=self.device
        )
        self.coef_, self.intercept_ = fitted.weights[0], fitted.intercept[0]
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "... row"]:
        """``w . x + b``; values above 0 favour the second class."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.asarray(X.astype(np.float64) @ self.coef_[0] + self.intercept_[0])

    def predict(self, X: Any) -> np.ndarray:
        """The more likely class of each row."""
        above = self.decision_function(X) > 0
        return np.asarray(self.classes_[above.astype(int)])

    def predict_proba(self, X: Any) -> Float[np.ndarray, "row 2"]:
        """The logistic function of the decision; a probability for ``logistic`` and ``lda``, uncalibrated for others.

        For calibrated probabilities, see `persona_probe.probes.calibration`.
        """
        positive = expit(self.decision_function(X))
        return np.stack([1.0 - positive, positive], axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
