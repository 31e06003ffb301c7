"""From scores to what can be acted on: probabilities, and thresholds with the error rates they really have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit

from persona_probe.errors import PersonaProbeError
from persona_probe.probes.inputs import Labels, checked_labels
from persona_probe.statistics.estimate import Estimate
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
    """Platt scaling (Platt 1999, "Probabilistic outputs for support vector machines", section 2.2).

    Targets are smoothed as there, ``(n+ + 1) / (n+ + 2)`` and ``1 / (n- + 2)``, so that separable scores do not become
    certainties.

    Args:
        scores: out of group (`ProbeScores.at`); scores of training dialogues would make the curve too steep. They come
            from the folds' probes, a little less well trained than the refit that the curve is then used for.
        labels: truth value a dialogue.

    Raises:
        PersonaProbeError: if a class is missing, lengths disagree, or the scores are not finite or all alike.
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
    """Where to raise a flag (``score > value``), and what that costs.

    Attributes:
        value: the threshold, in units of the score.
        asked: the false positive rate that was not to be exceeded.
        fpr: the rate realised on these scores, with its interval.
        tpr: the share of true dialogues that are flagged.
        negatives: how many false dialogues it rests on.
    """

    value: float
    asked: float
    fpr: Estimate
    tpr: Estimate
    negatives: int

    def __str__(self) -> str:
        """In words, with what it rests on."""
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

    The rate is realised on the negatives that the threshold was set on: on new ones it is a little higher, by about one
    in as many as there are negatives; and its interval says how little few negatives can tell.

    Args:
        scores: out of group (`ProbeScores.at`), for use with the refit probe on the same scale.
        labels: truth value a dialogue.
        fpr: share of false dialogues that may be flagged.
        questions: ``(dialogue,)``, which dialogues are not independent; intervals are over them.

    Raises:
        PersonaProbeError: if there are fewer than ``1 / fpr`` negatives (then no number of flags among them is such a
            rate), ``fpr`` is not in (0, 1), a class is missing, lengths disagree, or scores are not finite.
    """
    if not 0.0 < fpr < 1.0:
        raise PersonaProbeError(f"threshold_at: fpr is {fpr}; give a share between 0 and 1, such as 0.01")
    values, truth = _checked(scores, labels)
    negatives = np.sort(values[~truth])[::-1]
    if negatives.size * fpr < 1.0 - 1e-9:
        raise PersonaProbeError(
            f"threshold_at: a false positive rate of {fpr:g} cannot be set on {negatives.size} negatives: at least "
            f"{int(np.ceil(1.0 / fpr - 1e-9))} are needed; bring more, or ask for at least {1.0 / negatives.size:.2g}"
        )
    # so many negatives may be flagged, those tied with the first that may not be excepted
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
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise PersonaProbeError(f"scores have shape {values.shape}; give those of one layer, as ProbeScores.at(layer)")
    if not np.isfinite(values).all():
        raise PersonaProbeError(f"{int((~np.isfinite(values)).sum())} of {values.size} scores are not finite")
    return values, checked_labels(labels, len(values))
