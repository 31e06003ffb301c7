"""Means of numbers, changes of means over the same texts, and standardised changes.

A number is the sum of its question's effect (SD 0.6), its run's effect (the SD that is given) and noise (SD 0.8),
unless said. The truth is the mean over all questions, and runs, that might have been.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from benchmarks.coverage.answers import Codes, Floats, asked, unequally_often
from benchmarks.coverage.case import Case
from benchmarks.coverage.rates import ONE_RUN
from persona_probe.statistics.effect_sizes import paired_effect
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rates import mean_estimate

QUESTION, NOISE = 0.6, 0.8
MEAN, EFFECT = "mean_estimate", "paired_effect"
Ends = tuple[float, float, float]


def _numbers(rng: np.random.Generator, question: Codes, run: Codes, run_sd: float) -> Floats:
    """``(row,)`` numbers with a mean of zero."""
    of_question = QUESTION * rng.standard_normal(int(question.max()) + 1)
    of_run = run_sd * rng.standard_normal(int(run.max()) + 1)
    return of_question[question] + of_run[run] + NOISE * rng.standard_normal(question.size)


def _mean(questions: int, samples: int, runs: int, run_sd: float) -> Case:
    def draw(rng: np.random.Generator) -> Ends:
        question, run = asked(questions, runs, samples)
        return _ends(mean_estimate(_numbers(rng, question, run, run_sd), questions=question, seeds=run), 0.0)

    one = runs == 1 and run_sd > 0
    differ = f" x {runs} run{'s' * (runs > 1)}, SD of runs {run_sd:g}" if runs > 1 or one else ""
    setting = f"{questions} questions x {samples}{differ}{'; truth: of the recipe' if one else ''}"
    return Case(MEAN, setting, "coverage", draw, ONE_RUN if one else "", 0.3)


def _this_run() -> Case:
    """A single run of a recipe whose runs differ: its own mean is the truth."""

    def draw(rng: np.random.Generator) -> Ends:
        question, run = asked(24, 1, 4)
        own = 0.3 * rng.standard_normal()
        return _ends(mean_estimate(own + _numbers(rng, question, run, 0.0), questions=question, seeds=run), own)

    return Case(MEAN, "24 questions x 4 x 1 run, SD of runs 0.3; truth: of this run", "coverage", draw, cost=0.3)


LARGER = "where the two-way variance comes out below that of questions or of runs alone, the larger is taken"
UNEVEN = "half of the questions hold most rows, so that fewer count than the degrees of freedom say"
FEW_RUNS = "the spread of few runs, and so the degrees of freedom, are poorly known"
SKEWED = "few questions hold the large values of a skewed mean, which a t interval does not allow for"


def _skewed(questions: int, samples: int) -> Case:
    """Numbers that cannot be negative, such as KL or surprisal: lognormal over questions and rows."""

    def draw(rng: np.random.Generator) -> Ends:
        question, run = asked(questions, 1, samples)
        values = np.exp(_numbers(rng, question, run, 0.0))
        return _ends(mean_estimate(values, questions=question, seeds=run), math.exp((QUESTION**2 + NOISE**2) / 2))

    return Case(MEAN, f"{questions} questions x {samples}, lognormal", "coverage", draw, SKEWED, 0.3)


def _unbalanced() -> Case:
    def draw(rng: np.random.Generator) -> Ends:
        question, run = unequally_often(rng, 24, 5)
        return _ends(mean_estimate(_numbers(rng, question, run, 0.0), questions=question, seeds=run), 0.0)

    return Case(MEAN, "24 questions, half of them x 1 and half x 9", "coverage", draw, cost=0.3)


def _change(shift: float, questions: int, samples: int, runs: int, run_sd: float) -> Case:
    """The change of a mean; the truth is of the recipe."""

    def draw(rng: np.random.Generator) -> Ends:
        question, run = asked(questions, runs, samples)
        before = 2.0 * rng.standard_normal(question.size)
        after = before + shift + _numbers(rng, question, run, run_sd)
        return _ends(paired_effect(before, after, questions=question, seeds=run)[0], shift)

    return Case(f"{EFFECT}: the change", f"{shift:g}, {_design(questions, samples, runs, run_sd)}", "coverage", draw)


def _d_z(standardised: float, questions: int, samples: int, runs: int, run_sd: float) -> Case:
    """The mean change in SD over questions' mean changes; the truth is of these runs."""
    spread = math.sqrt(QUESTION**2 + NOISE**2 / (samples * runs))

    def draw(rng: np.random.Generator) -> Ends:
        question, run = asked(questions, runs, samples)
        of_run = run_sd * rng.standard_normal(runs)
        before = 2.0 * rng.standard_normal(question.size)
        after = before + standardised * spread + of_run[run] + _numbers(rng, question, run, 0.0)
        d_z = paired_effect(before, after, questions=question, seeds=run)[1]
        return _ends(d_z, standardised + float(of_run.mean()) / spread)

    design = _design(questions, samples, runs, run_sd)
    return Case(f"{EFFECT}: d_z", f"{standardised:g}, {design}; truth: of these runs", "coverage", draw)


def _design(questions: int, samples: int, runs: int, run_sd: float) -> str:
    return f"{questions} questions x {samples}{f' x {runs} runs, SD of runs {run_sd:g}' if runs > 1 else ''}"


def _ends(estimate: Estimate, truth: float) -> Ends:
    return estimate.low, estimate.high, truth


DESIGNS = ((8, 4, 1, 0.0), (24, 1, 1, 0.0), (24, 4, 1, 0.0), (24, 4, 3, 0.0), (24, 4, 3, 0.3), (24, 4, 5, 0.3))
_CASES = [
    *(_mean(n, samples, 1, 0.0) for n in (6, 8, 24, 48) for samples in (1, 4)),
    *(_mean(n, 4, runs, sd) for n in (8, 24) for runs in (3, 5) for sd in (0.0, 0.3, 1.0)),
    _this_run(),
    _mean(24, 4, 1, 0.3),
    *(_skewed(n, samples) for n in (8, 24, 48) for samples in (1, 4)),
    _unbalanced(),
    *(_change(shift, *design) for design in DESIGNS[2:] for shift in (0.0, 1.0)),
    *(_d_z(size, *design) for design in DESIGNS for size in (0.0, 0.5, 2.0)),
]


def _explained(case: Case) -> Case:
    """The case with the reasons that its setting gives."""
    why = case.why or FEW_RUNS * ("runs" in case.setting) or UNEVEN * ("half of them" in case.setting)
    return replace(case, cautious=LARGER, why=why)


CASES = [_explained(case) for case in _CASES]
