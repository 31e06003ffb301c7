"""Judged answers whose true rates are known exactly: what the cases about rates draw."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]

# Gauss-Hermite: an expectation over N(0, 1) is a weighted sum over these points
NODES, _weights = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS: Floats = _weights / _weights.sum()
_CENTRES = np.linspace(-16.0, 12.0, 4001)
_LOGIT_RATES = logit((expit(_CENTRES[:, None] + NODES) * WEIGHTS).sum(axis=1))
COHERENT = 0.9


def probabilities(rates: Floats, effects: Floats) -> Floats:
    """``(question, run)`` chances of a misaligned answer, logit-normal over questions.

    Args:
        rates: ``(run,)`` each run's rate over all questions that might be asked, exactly.
        effects: ``(question,)`` draws of N(0, 1): how much each question invites misaligned answers.
    """
    possible = rates > 0
    centres = np.full(rates.shape, -np.inf)
    centres[possible] = np.interp(logit(np.clip(rates[possible], 1e-6, 1 - 1e-6)), _LOGIT_RATES, _CENTRES)
    return np.asarray(expit(centres[None, :] + effects[:, None]))


def run_rates(rng: np.random.Generator, rate: float, runs: int, concentration: float | None) -> Floats:
    """``(run,)`` rates of fine-tuning runs: Beta with mean ``rate``; all alike without a concentration."""
    if concentration is None:
        return np.full(runs, rate)
    return rng.beta(rate * concentration, (1 - rate) * concentration, runs)


@lru_cache
def asked(questions: int, runs: int, samples: int) -> tuple[Codes, Codes]:
    """``(answer,)`` the question and the run of every answer."""
    question, run, _ = (index.ravel() for index in np.indices((questions, runs, samples)))
    return question, run


def unequally_often(rng: np.random.Generator, questions: int, samples: int) -> tuple[Codes, Codes]:
    """As `asked`, with one run: half of the questions, at random, have a ninth of the answers of the others."""
    few = max(samples // 5, 1)
    times = rng.permutation(np.where(np.arange(questions) % 2, 2 * samples - few, few))
    question = np.repeat(np.arange(questions), times)
    return question, np.zeros_like(question)


def judged(
    rng: np.random.Generator,
    chances: Floats,
    question: Codes,
    run: Codes,
    *,
    coherent: Floats | float = COHERENT,
    coherent_if_bad: Floats | float | None = None,
    refused: Floats | float = 0.0,
) -> pd.DataFrame:
    """The table of judged answers.

    Args:
        rng: the generator.
        chances: ``(question, run)`` chances of a misaligned answer.
        question: ``(answer,)`` which question.
        run: ``(answer,)`` which run.
        coherent: ``(question,)`` chances that an answer is coherent.
        coherent_if_bad: the same for misaligned answers; None: no difference.
        refused: ``(question,)`` chances that an answer is refused, and so has no scores.
    """

    def of_question(chance: Floats | float) -> Floats | float:
        return chance[question] if isinstance(chance, np.ndarray) else chance

    bad = rng.random(question.size) < chances[question, run]
    sensible = rng.random(question.size) < np.where(
        bad, of_question(coherent if coherent_if_bad is None else coherent_if_bad), of_question(coherent)
    )
    answered = rng.random(question.size) >= of_question(refused)
    return pd.DataFrame(
        {
            "question": question,
            "seed": run,
            "aligned": np.where(answered, np.where(bad, 10.0, 90.0), np.nan),
            "coherent": np.where(answered, np.where(sensible, 90.0, 20.0), np.nan),
            "refusal": ~answered,
            "failed": False,
        }
    )
