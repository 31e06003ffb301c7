"""Changes of a rate from before to after, or from unsteered to steered.

Questions, runs and the truth are as for the rates. "Same questions" means that what invites a misaligned answer before
invites it after; otherwise the two models' questions are independent. Runs are independent between the two sides,
unless said.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from benchmarks.coverage.answers import asked, judged, probabilities, run_rates, unequally_often
from benchmarks.coverage.case import Case
from benchmarks.coverage.rates import ONE_RUN, SKEWED
from persona_probe.behaviour.em_rates import rate_change

NAME = "pp.rate_change"
PAIRS = ((0.02, 0.02), (0.02, 0.1), (0.1, 0.1), (0.1, 0.4), (0.4, 0.4))
Ends = tuple[float, float, float]


def _one_run(before: float, after: float, questions: int, samples: int, *, same: bool) -> Case:
    """One model before and one after; the truth is of these two."""

    def draw(rng: np.random.Generator) -> Ends:
        effects = rng.standard_normal(questions)
        others = effects if same else rng.standard_normal(questions)
        first = _table(rng, np.full(1, before), effects, samples)
        return _ends(first, _table(rng, np.full(1, after), others, samples), after - before)

    setting = f"{before:g} → {after:g}, {questions} questions x {samples}, {_questions(same)}"
    return Case(NAME, setting, "coverage", draw, cost=4 + questions * samples / 400)


def _runs(before: float, after: float, runs: int, concentration: float | None, questions: int = 24) -> Case:
    """Several runs on each side; the truth is of the recipes."""

    def draw(rng: np.random.Generator) -> Ends:
        effects = rng.standard_normal(questions)
        first = _table(rng, run_rates(rng, before, runs, concentration), effects, 20)
        return _ends(first, _table(rng, run_rates(rng, after, runs, concentration), effects, 20), after - before)

    differ = "all alike" if concentration is None else f"concentration {concentration:g}"
    setting = f"{before:g} → {after:g}, {questions} questions x 20, same questions, {runs} + {runs} runs, {differ}"
    why = ONE_RUN if runs == 1 else ""
    return Case(NAME, setting + ("; truth: of the recipes" if runs == 1 else ""), "coverage", draw, why, 6.0)


def _base_model(before: float, after: float, runs: int, concentration: float) -> Case:
    """A base model, of which there is one, and several runs of a fine-tune."""

    def draw(rng: np.random.Generator) -> Ends:
        effects = rng.standard_normal(24)
        first = _table(rng, np.full(1, before), effects, 20)
        return _ends(first, _table(rng, run_rates(rng, after, runs, concentration), effects, 20), after - before)

    setting = f"{before:g} → {after:g}, 24 questions x 20, same questions, base model + {runs} runs, "
    return Case(NAME, f"{setting}concentration {concentration:g}", "coverage", draw, cost=6.0)


def _pooled(draws: int, concentration: float) -> Case:
    """One unsteered model, and steering along several random directions, pooled: nothing changes on average."""

    def draw(rng: np.random.Generator) -> Ends:
        effects = rng.standard_normal(24)
        unsteered = _table(rng, np.full(1, 0.3), effects, 10)
        return _ends(unsteered, _table(rng, run_rates(rng, 0.3, draws, concentration), effects, 10), 0.0)

    setting = f"0.3 → 0.3, 24 questions x 10, unsteered + {draws} random directions, concentration {concentration:g}"
    return Case(NAME, setting, "coverage", draw, cost=6.0)


def _paired_runs(before: float, after: float, runs: int) -> Case:
    """The same runs on both sides, for example unsteered and steered."""

    def draw(rng: np.random.Generator) -> Ends:
        effects, rates = rng.standard_normal(24), run_rates(rng, before, runs, 50.0)
        first = _table(rng, rates, effects, 20)
        return _ends(first, _table(rng, rates * after / before, effects, 20), after - before)

    setting = f"{before:g} → {after:g}, 24 questions x 20, the same {runs} runs on both sides, concentration 50"
    return Case(NAME, setting, "coverage", draw, cost=6.0)


def _unbalanced(before: float, after: float) -> Case:
    def draw(rng: np.random.Generator) -> Ends:
        effects = rng.standard_normal(24)
        sides = [
            judged(rng, probabilities(np.full(1, rate), effects), *unequally_often(rng, 24, 20))
            for rate in (before, after)
        ]
        return _ends(*sides, after - before)

    setting = f"{before:g} → {after:g}, 24 questions, same questions, on each side half of them x 4 and half x 36"
    return Case(NAME, setting, "coverage", draw, cost=6.0)


def _from_zero(after: float, questions: int, samples: int, runs: int, kind: str) -> Case:
    """A base model in which nothing is misaligned, the usual case."""

    def change(rng: np.random.Generator) -> Ends:
        effects = rng.standard_normal(questions)
        first = _table(rng, np.zeros(1), effects, samples)
        rates = run_rates(rng, after, runs, None if runs == 1 or after == 0 else 50.0)
        return _ends(first, _table(rng, rates, effects, samples), after)

    def rose(rng: np.random.Generator) -> bool:
        return change(rng)[0] > 0

    tuned = f", {runs} runs after, concentration 50" if runs > 1 else ""
    setting = f"0 → {after:g}, {questions} questions x {samples}{tuned}"
    if kind == "power":
        return Case(NAME, setting, "power", rose, cost=5.0)
    return Case(NAME, setting, "coverage", change, cost=5.0)


def _table(rng: np.random.Generator, rates: np.ndarray, effects: np.ndarray, samples: int) -> pd.DataFrame:
    return judged(rng, probabilities(rates, effects), *asked(effects.size, rates.size, samples))


def _ends(before: pd.DataFrame, after: pd.DataFrame, truth: float) -> Ends:
    change = rate_change(before, after, "betley")
    return change.low, change.high, truth


def _questions(same: bool) -> str:
    return "same questions" if same else "independent questions"


TWO_BOUNDS = (
    "an end that is not between zero and the change allows for a correlation of 0.1 within each side's questions"
)
INDEPENDENT = "the runs of the two sides are taken as independent, and here they are the same"
FEW_DRAWS = "the spread of few draws is poorly known"
ZERO_DESIGNS = ((8, 50), (24, 10), (24, 50), (48, 10))
_CASES = [
    *(_one_run(*pair, n, 20, same=same) for n in (8, 24) for pair in PAIRS for same in (True, False)),
    *(_one_run(*pair, 24, 50, same=True) for pair in PAIRS),
    *(_runs(*pair, runs, kappa) for kappa in (10, 50, None) for pair in PAIRS[2:] for runs in (3, 5)),
    *(_runs(*pair, 3, 50, 8) for pair in PAIRS[2:]),
    *(_runs(*pair, 1, 50) for pair in PAIRS[2:]),
    *(_base_model(*pair, runs, 50) for pair in PAIRS[1:4] for runs in (3, 5)),
    *(_pooled(draws, kappa) for kappa in (20, 100) for draws in (3, 5, 10)),
    *(_paired_runs(*pair, 3) for pair in PAIRS[2:4]),
    *(_unbalanced(*pair) for pair in PAIRS[1:4]),
    *(_from_zero(after, *design, 1, "coverage") for design in ZERO_DESIGNS for after in (0.0, 0.05, 0.1)),
    *(_from_zero(after, 24, 20, runs, "coverage") for runs in (3, 5) for after in (0.05, 0.1)),
    *(_from_zero(after, *design, 1, "power") for design in ZERO_DESIGNS for after in (0.05, 0.1, 0.2)),
    *(_from_zero(after, 24, 20, runs, "power") for runs in (3, 5) for after in (0.05, 0.1, 0.2)),
]


def _explained(case: Case) -> Case:
    """The case with the reasons that its setting gives."""
    cautious = INDEPENDENT if "on both sides" in case.setting else TWO_BOUNDS
    low = FEW_DRAWS if "random directions" in case.setting else SKEWED * ("concentration" in case.setting)
    return replace(case, cautious=cautious, why=case.why or low)


CASES = [_explained(case) for case in _CASES]
