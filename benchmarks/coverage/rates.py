"""Shares of judged answers: EM rates and accuracies.

Questions differ: the logit of a question's rate is normal with a standard deviation of 1, and the truth is the rate
over all questions that might have been asked. Where there are several fine-tuning runs, or one that is an example of
others, the runs' rates are Beta with the concentration that is given (50: at a rate of 10 %, an SD of 4 points; 10: of
9 points), and the truth is the mean over all runs that might have been trained. 90 % of answers are coherent, unless
said.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import expit

from benchmarks.coverage.answers import (
    NODES,
    WEIGHTS,
    Floats,
    asked,
    judged,
    probabilities,
    run_rates,
    unequally_often,
)
from benchmarks.coverage.case import Case
from persona_probe.behaviour.em_rates import em_rate
from persona_probe.behaviour.multiple_choice import choice_accuracy

RATES = (0.005, 0.02, 0.1, 0.4, 0.94)
ONE_RUN = "one run does not show how runs differ, so its interval is about this run only"
Ends = tuple[float, float, float]


def equally_asked(rate: float, questions: int, samples: int, runs: int, concentration: float | None) -> Case:
    """All questions are asked equally often, and the recipe's rate is the truth."""

    def draw(rng: np.random.Generator) -> Ends:
        rates = run_rates(rng, rate, runs, concentration)
        chances = probabilities(rates, rng.standard_normal(questions))
        return _ends(judged(rng, chances, *asked(questions, runs, samples)), rate)

    differ = "" if runs == 1 else f" x {runs} runs, {_alike(concentration)}"
    setting = f"rate {rate:g}, {questions} questions x {samples}{differ}"
    return Case("pp.behaviour.em_rate", setting, "coverage", draw, cost=1 + questions * samples * runs / 1000)


def one_run(rate: float, of: str) -> Case:
    """A single run of a recipe whose runs differ."""

    def draw(rng: np.random.Generator) -> Ends:
        rates = run_rates(rng, rate, 1, 50.0)
        chances = probabilities(rates, rng.standard_normal(24))
        return _ends(judged(rng, chances, *asked(24, 1, 20)), float(rates[0]) if of == "this run" else rate)

    setting = f"rate {rate:g}, 24 questions x 20, one run, {_alike(50)}; truth: the rate of {of}"
    return Case("pp.behaviour.em_rate", setting, "coverage", draw, ONE_RUN if of == "the recipe" else "", 2.0)


def _unbalanced(rate: float) -> Case:
    def draw(rng: np.random.Generator) -> Ends:
        chances = probabilities(np.full(1, rate), rng.standard_normal(24))
        return _ends(judged(rng, chances, *unequally_often(rng, 24, 20)), rate)

    setting = f"rate {rate:g}, 24 questions, half of them x 4 and half x 36"
    return Case("pp.behaviour.em_rate", setting, "coverage", draw, cost=2.0)


def _hot(questions: int, samples: int) -> Case:
    """Few questions cause it all."""

    def draw(rng: np.random.Generator) -> Ends:
        chances = np.where(rng.random(questions) < 0.1, 0.5, 0.0)[:, None]
        return _ends(judged(rng, chances, *asked(questions, 1, samples)), 0.05)

    setting = f"rate 0.05: a tenth of questions at 0.5, the others at 0; {questions} questions x {samples}"
    return Case("pp.behaviour.em_rate", setting, "coverage", draw, RARE, 2.0)


def _refusals(rate: float) -> Case:
    """What invites a misaligned answer also invites a refusal."""

    def refused(effects: Floats) -> Floats:
        return np.asarray(expit(effects - 2.0))

    here = probabilities(np.full(1, rate), NODES)[:, 0]
    answered = WEIGHTS * (1 - refused(NODES))
    truth = float((here * answered).sum() / answered.sum())

    def draw(rng: np.random.Generator) -> Ends:
        effects = rng.standard_normal(24)
        chances = probabilities(np.full(1, rate), effects)
        return _ends(judged(rng, chances, *asked(24, 1, 20), refused=refused(effects)), truth)

    setting = f"rate {truth:.3f} among answered, 24 questions x 20, 16 % refused, more where more is misaligned"
    return Case("pp.behaviour.em_rate", setting, "coverage", draw, cost=2.0)


def _coherence(rate: float, definition: str, runs: int) -> Case:
    """Misaligned answers, and answers to the questions that invite them, are more often incoherent."""

    def sensible(effects: Floats, bad: bool) -> Floats:
        return np.asarray(expit((0.5 if bad else 2.5) - effects))

    here = probabilities(np.full(1, rate), NODES)[:, 0]
    both = float((WEIGHTS * here * sensible(NODES, bad=True)).sum())
    rest = float((WEIGHTS * (1 - here) * sensible(NODES, bad=False)).sum())
    truth = both if definition == "turner" else both / (both + rest)

    def draw(rng: np.random.Generator) -> Ends:
        effects = rng.standard_normal(24)
        chances = probabilities(np.full(runs, rate), effects)
        good, bad = sensible(effects, bad=False), sensible(effects, bad=True)
        table = judged(rng, chances, *asked(24, runs, 20), coherent=good, coherent_if_bad=bad)
        return _ends(table, truth, definition)

    setting = (
        f"'{definition}' {truth:.3f}, 24 questions x 20{f' x {runs} runs, all alike' if runs > 1 else ''}; "
        f"{100 * (both + rest):.0f} % coherent, fewer on bad questions and among misaligned answers"
    )
    return Case("pp.behaviour.em_rate", setting, "coverage", draw, cost=2.0)


def _choices(accuracy: float, questions: int, groups: int | None) -> Case:
    """Each question has one answer; with groups (subjects), accuracies differ between them."""

    def draw(rng: np.random.Generator) -> Ends:
        group = np.arange(questions) % (groups or questions)
        effects = rng.standard_normal(groups) if groups else np.zeros(questions)
        chances = probabilities(np.full(1, accuracy), effects)[:, 0] if groups else np.full(questions, accuracy)
        right = rng.random(questions) < chances[group]
        table = pd.DataFrame({"question": np.arange(questions), "group": group, "correct": True, "chosen": right})
        estimate = choice_accuracy(table, over="group" if groups else "question")
        return estimate.low, estimate.high, accuracy

    over = f"{groups} groups that differ" if groups else "no groups"
    setting = f"accuracy {accuracy:g}, {questions} questions, {over}"
    return Case("pp.behaviour.choice_accuracy", setting, "coverage", draw, cost=1.0)


def _ends(table: pd.DataFrame, truth: float, definition: str = "betley") -> Ends:
    estimate = em_rate(table, definition)
    return estimate.low, estimate.high, truth


def _alike(concentration: float | None) -> str:
    return "all alike" if concentration is None else f"concentration {concentration:g}"


CAUTIOUS = "few events or questions cannot show how much questions differ: a correlation of 0.1 within them is assumed"
DISCRETE = "few answers, so that only few rates are possible, and t instead of z makes the interval wider"
RARE = "in 8 % of the samples (24 questions) no question is among those that go wrong, and few such questions are seen"
SKEWED = "the rates of runs are skewed, and three to five runs do not show it"


def _one_answer(case: Case) -> bool:
    """Whether each question has one answer, so that no correlation is assumed."""
    return case.setting.endswith("questions x 1") or "no groups" in case.setting


_CASES = [
    *(equally_asked(rate, n, samples, 1, None) for n in (8, 24, 48) for samples in (10, 50) for rate in RATES),
    *(equally_asked(rate, n, samples, 3, 50) for n in (8, 24, 48) for samples in (10, 50) for rate in RATES),
    *(equally_asked(rate, 24, samples, 5, 50) for samples in (10, 50) for rate in RATES),
    *(equally_asked(rate, 24, 20, runs, 50) for runs in (3, 5) for rate in RATES[1:4]),
    *(equally_asked(rate, 24, 10, runs, 10) for runs in (3, 5) for rate in RATES[1:4]),
    *(equally_asked(rate, 24, 10, runs, None) for runs in (3, 5) for rate in RATES[1:4]),
    *(equally_asked(rate, n, 1, 1, None) for n in (24, 200) for rate in RATES[2:]),
    *(one_run(rate, of) for of in ("this run", "the recipe") for rate in RATES[1:4]),
    *(_unbalanced(rate) for rate in RATES[1:]),
    *(_hot(n, samples) for n in (24, 48) for samples in (10, 50)),
    *(_refusals(rate) for rate in RATES[1:4]),
    *(
        _coherence(rate, definition, runs)
        for definition in ("betley", "turner")
        for rate in (0.1, 0.4)
        for runs in (1, 3)
    ),
    *(_choices(accuracy, n, None) for n in (20, 200) for accuracy in (0.25, 0.5, 0.9, 0.99)),
    *(_choices(accuracy, 200, 20) for accuracy in (0.25, 0.5, 0.9)),
]


def _explained(case: Case) -> Case:
    """The case with the reasons that its setting gives."""
    why = case.why or SKEWED * ("concentration" in case.setting)
    return replace(case, cautious=DISCRETE if _one_answer(case) else CAUTIOUS, why=why)


CASES = [_explained(case) for case in _CASES]
