"""From scores to decisions: probabilities, and thresholds with the error rates they really have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit

from persona_probe.errors import NUMBER, PersonaProbeError, check_types
from persona_probe.probes.inputs import Labels, checked_labels
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import numeric_array
from persona_probe.statistics.rates import ratio_estimate


@dataclass(frozen=True)
class Calibration:
    """A logistic curve from scores to probabilities: ``1 / (1 + exp(-(slope * score + offset)))``."""

    slope: float
    offset: float

    def probability(self, scores: npt.ArrayLike) -> np.ndarray:
        """The probability of the true class at each score; any shape."""
        return np.asarray(expit(self.slope * np.asarray(scores, dtype=np.float64) + self.offset))


def calibrate(scores: Float[np.ndarray, "... dialogue"], labels: Labels) -> Calibration:
    """The logistic curve that turns scores into probabilities, by Platt scaling.

    Targets are smoothed, ``(n+ + 1) / (n+ + 2)`` and ``1 / (n- + 2)``, so that separable scores do not become
    certainties (Platt 1999, "Probabilistic outputs for support vector machines", section 2.2).

    Args:
        scores: out of group (`ProbeScores.at`); scores of training dialogues would make the curve too steep. They come
            from the folds' probes, a little less well trained than the refit that the curve is then used for.
        labels: one truth value per dialogue.

    Raises:
        PersonaProbeError: if a class is missing, lengths disagree, or the scores are not finite or all the same.

    Examples:
        >>> curve = calibrate(np.array([-2.0, -1.0, 0.5, -0.5, 1.0, 2.0]), [False, False, False, True, True, True])
        >>> curve.probability([-2.0, 0.0, 2.0]).round(2)
        array([0.22, 0.5 , 0.78])
    """
    values, truth = _checked(scores, labels)
    centre, spread = float(values.mean()), float(values.std())
    if spread == 0.0:
        raise PersonaProbeError(f"calibrate: all {len(values)} scores are {values[0]:g}; there is nothing to calibrate")
    scaled = (values - centre) / spread
    positives, negatives = int(truth.sum()), int((~truth).sum())
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        logits = at[0] * scaled + at[1]
        residual = expit(logits) - target
        value = float((np.logaddexp(0.0, logits) - target * logits).mean())
        return value, np.array([residual @ scaled, residual.sum()]) / len(values)

    slope, offset = minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    return Calibration(float(slope / spread), float(offset - slope * centre / spread))


@dataclass(frozen=True)
class Threshold:
    """Above which score a dialogue is flagged (``score > value``), and what that costs.

    Attributes:
        value: the threshold, in units of the score.
        asked: the false positive rate that must not be exceeded.
        fpr: the rate reached on these scores, with its interval.
        tpr: the share of true dialogues that are flagged.
        negatives: how many false dialogues the threshold was set on.
    """

    value: float
    asked: float
    fpr: Estimate
    tpr: Estimate
    negatives: int

    def __str__(self) -> str:
        """In words, with the number of negatives that it was set on."""
        return (
            f"score > {self.value:.4g}: false positive rate {self.fpr} on the {self.negatives} negatives that it was "
            f"set on (asked: at most {self.asked:g}), true positive rate {self.tpr}"
        )


def threshold_at(
    scores: Float[np.ndarray, "... dialogue"],
    labels: Labels,
    fpr: float = 0.01,
    *,
    questions: npt.ArrayLike | None = None,
) -> Threshold:
    """The lowest threshold whose false positive rate on these dialogues is at most ``fpr``.

    The rate is measured on the negatives that the threshold was set on: on new ones it is a little higher, by about 1
    divided by the number of negatives; and its interval is wide where negatives are few. Both intervals take the
    threshold as given.

    Args:
        scores: out of group (`ProbeScores.at`), for use with the refit probe on the same scale.
        labels: one truth value per dialogue.
        fpr: share of false dialogues that may be flagged.
        questions: ``(dialogue,)`` which question each dialogue answers; intervals are over questions. None: dialogues
            are taken as independent, and intervals are too short where several answer one question.

    Raises:
        PersonaProbeError: if there are fewer than ``1 / fpr`` negatives (then no number of flags among them gives such
            a rate), ``fpr`` is not in (0, 1), a class is missing, lengths disagree, or scores are not finite.

    Examples:
        >>> scores = np.concatenate([np.linspace(-1.0, 1.0, 100), np.linspace(0.0, 3.0, 50)])
        >>> threshold = threshold_at(scores, np.repeat([False, True], [100, 50]), fpr=0.05)
        >>> round(threshold.value, 2), threshold.tpr.value
        (0.91, 0.7)
    """
    check_types(fpr=(fpr, NUMBER))
    if not 0.0 < fpr < 1.0:
        raise PersonaProbeError(f"threshold_at: fpr is {fpr}; give a share between 0 and 1, such as 0.01")
    values, truth = _checked(scores, labels)
    negatives = np.sort(values[~truth])[::-1]
    if negatives.size * fpr < 1.0 - 1e-9:
        raise PersonaProbeError(
            f"threshold_at: a false positive rate of {fpr:g} cannot be set on {negatives.size} negatives: at least "
            f"{int(np.ceil(1.0 / fpr - 1e-9))} are needed; bring more, or ask for at least {1.0 / negatives.size:.2g}"
        )
    # the number of negatives that may be flagged, except those tied with the first that may not
    allowed = int(np.floor(negatives.size * fpr + 1e-9))
    first_kept = negatives[allowed]
    above = values[values > first_kept]
    value = float(first_kept if not above.size else (first_kept + above.min()) / 2.0)
    flagged = values > value
    return Threshold(
        value,
        fpr,
        ratio_estimate(flagged & ~truth, ~truth, questions=questions),
        ratio_estimate(flagged & truth, truth, questions=questions),
        int(negatives.size),
    )


def _checked(scores: Float[np.ndarray, "... dialogue"], labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    values = numeric_array(scores, "scores").astype(np.float64)
    if values.ndim != 1:
        raise PersonaProbeError(f"scores have shape {values.shape}; give those of one layer, as ProbeScores.at(layer)")
    if not np.isfinite(values).all():
        raise PersonaProbeError(f"{int((~np.isfinite(values)).sum())} of {values.size} scores are not finite")
    return values, checked_labels(labels, len(values))
