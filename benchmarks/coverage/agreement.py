"""What is said of a judge: rates corrected for its errors, and how far two judges agree.

Questions differ as in the section on rates. A judge flags a truly misaligned answer with the probability that is called
sensitivity, and spares another with that called specificity, independently of all else. Labels, which are the truth,
are given to so many answers, half of them flagged ones (all of these if there are fewer). In transported corrections
they are given to answers of one model (or of both), and correct the rate of another, of which the judge errs as often.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.special import expit

from benchmarks.coverage.answers import NODES, WEIGHTS, Floats, asked, probabilities
from benchmarks.coverage.case import Case
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.kappa import cohens_kappa, correlation
from persona_probe.statistics.rogan_gladen import FlaggedAnswers, LabelledAnswers, corrected_difference, corrected_rate

RATES = (0.0, 0.02, 0.1, 0.4, 0.94)
JUDGES = ((0.95, 0.95), (0.7, 0.99))
ALIKE = "answers to one question are taken to be alike by at least 0.1, and the errors of the judges drawn here are not"
RARE = "few answers are flagged, so agreement by chance is hardly known: the interval is as wide as that of agreement"
FEW = "few questions do not show how much they differ, on which the correlation of scores depends"
AT_ZERO = "no interval lies below a rate of 0, so only one of the two ends can miss it"
Ends = tuple[float, float, float]


class _Answers:
    """The answers of one model to the same questions: what is true, and what the judge flags."""

    def __init__(
        self, rng: np.random.Generator, rate: float, effects: Floats, judge: tuple[float, float], samples: int
    ) -> None:
        self.questions = asked(effects.size, 1, samples)[0]
        self.truth = rng.random(self.questions.size) < probabilities(np.full(1, rate), effects)[self.questions, 0]
        self.flagged = rng.random(self.truth.size) < np.where(self.truth, judge[0], 1.0 - judge[1])

    @property
    def judged(self) -> FlaggedAnswers:
        return FlaggedAnswers(self.flagged, self.questions)


def _labelled(rng: np.random.Generator, models: list[_Answers], labels: int) -> LabelledAnswers:
    """Labels of half flagged answers and half others."""
    truth, flagged, questions = (
        np.concatenate([getattr(one, name) for one in models]) for name in ("truth", "flagged", "questions")
    )
    first = rng.permutation(np.flatnonzero(flagged))[: labels // 2]
    rest = rng.permutation(np.flatnonzero(~flagged))[: labels - first.size]
    rows = np.concatenate([first, rest])
    return LabelledAnswers(truth[rows], flagged[rows], questions[rows])


def _ends(estimate: Estimate, truth: float) -> Ends | None:
    return None if math.isnan(estimate.low) else (estimate.low, estimate.high, truth)


def _of(models: list[_Answers]) -> FlaggedAnswers:
    return FlaggedAnswers(
        np.concatenate([one.flagged for one in models]), np.concatenate([one.questions for one in models])
    )


def _own(rate: float, judge: tuple[float, float], labels: int, questions: int, samples: int) -> Case:
    """The labelled answers are the model's own."""

    def draw(rng: np.random.Generator) -> Ends | None:
        answers = _Answers(rng, rate, rng.standard_normal(questions), judge, samples)
        return _ends(corrected_rate(answers.judged, _labelled(rng, [answers], labels)), rate)

    setting = f"rate {rate:g}, {_named(judge)}, {questions} questions x {samples}, {labels} labels"
    return Case("pp.behaviour.corrected_rates", setting, "coverage", draw, cost=3.0)


def _transported(rate: float, judge: tuple[float, float], labels: int) -> Case:
    """The labelled answers are those of another model, of which 30 % are misaligned."""

    def draw(rng: np.random.Generator) -> Ends | None:
        effects = rng.standard_normal(24)
        other, answers = (_Answers(rng, of, effects, judge, 20) for of in (0.3, rate))
        checked = _labelled(rng, [other], labels)
        return _ends(corrected_rate(answers.judged, checked, frame=other.judged), rate)

    setting = f"rate {rate:g}, {_named(judge)}, 24 questions x 20, {labels} labels of another model (rate 0.3)"
    return Case("pp.behaviour.corrected_rates", setting, "coverage", draw, cost=4.0)


def _change(rates: tuple[float, float], judge: tuple[float, float], labels: int) -> Case:
    """Both models share the questions and the labels."""

    def draw(rng: np.random.Generator) -> Ends | None:
        effects = rng.standard_normal(24)
        models = [_Answers(rng, rate, effects, judge, 20) for rate in rates]
        checked = _labelled(rng, models, labels)
        change = corrected_difference(models[0].judged, models[1].judged, checked, frame=_of(models))
        return _ends(change, rates[1] - rates[0])

    setting = f"from {rates[0]:g} to {rates[1]:g}, {_named(judge)}, 24 questions x 20, {labels} labels of both models"
    return Case("pp.behaviour.corrected_change", setting, "coverage", draw, cost=6.0)


def _useless(labels: int) -> Case:
    """A judge that is no better than chance: is a rate claimed?"""

    def draw(rng: np.random.Generator) -> bool:
        effects = rng.standard_normal(24)
        other, answers = (_Answers(rng, of, effects, (0.2, 0.8), 20) for of in (0.3, 0.1))
        rate = corrected_rate(answers.judged, _labelled(rng, [other], labels), frame=other.judged)
        return not math.isnan(rate.low) and rate.high - rate.low < 1.0

    setting = f"is a rate claimed where the judge flags 20 % of all answers, whatever they are? {labels} labels"
    return Case("pp.behaviour.corrected_rates", setting, "size", draw, cost=4.0)


def _kappa(rate: float, judge: tuple[float, float], questions: int, samples: int) -> Case:
    """Two judges that err alike, independently of each other."""
    here = probabilities(np.full(1, rate), NODES)[:, 0]
    truly = float(WEIGHTS @ here)
    hit, false = judge[0], 1.0 - judge[1]
    share = truly * hit + (1 - truly) * false
    agree = truly * (hit**2 + (1 - hit) ** 2) + (1 - truly) * (false**2 + (1 - false) ** 2)
    chance = share**2 + (1 - share) ** 2
    truth = (agree - chance) / (1 - chance)

    def draw(rng: np.random.Generator) -> Ends | None:
        first = _Answers(rng, rate, rng.standard_normal(questions), judge, samples)
        second = rng.random(first.truth.size) < np.where(first.truth, hit, false)
        return _ends(cohens_kappa(first.flagged, second, questions=first.questions), truth)

    setting = f"kappa {truth:.2f}: rate {rate:g}, two judges with {_named(judge)}, {questions} questions x {samples}"
    return Case("pp.behaviour.judge_agreement", setting, "coverage", draw, cost=1.0)


def _scores(questions: int, samples: int, ranks: bool) -> Case:
    """Two judges' scores: what the question and the answer are worth, and an error of each judge's own."""

    def draw(rng: np.random.Generator) -> Ends | None:
        question = asked(questions, 1, samples)[0]
        worth = rng.standard_normal(questions)[question] + rng.standard_normal(question.size)
        first, second = (worth + rng.standard_normal(question.size) for _ in range(2))
        if ranks:
            first, second = expit(first), second**3
        return _ends(correlation(first, second, ranks=ranks, questions=question), truth)

    pearson = 2.0 / 3.0
    truth = 6.0 / np.pi * float(np.arcsin(pearson / 2.0)) if ranks else pearson
    name = f"Spearman's {truth:.2f}" if ranks else f"Pearson's {truth:.2f}"
    setting = f"{name} of scores, {questions} questions x {samples}"
    return Case("pp.behaviour.judge_agreement", setting, "coverage", draw, cost=1.0)


def _named(judge: tuple[float, float]) -> str:
    return f"sensitivity {judge[0]:g}, specificity {judge[1]:g}"


_CASES = [
    *(_own(rate, judge, 50, 24, 20) for judge in JUDGES for rate in RATES),
    *(_own(rate, JUDGES[0], 200, 24, 20) for rate in RATES),
    *(_own(rate, (0.6, 0.6), 100, 24, 20) for rate in (0.1, 0.4)),
    *(_own(rate, JUDGES[0], 50, 8, 50) for rate in (0.02, 0.1, 0.4)),
    *(_transported(rate, judge, 100) for judge in JUDGES for rate in RATES),
    *(_transported(rate, JUDGES[0], 50) for rate in (0.02, 0.4)),
    *(_change(rates, JUDGES[0], labels) for rates in ((0.02, 0.02), (0.02, 0.1), (0.02, 0.4)) for labels in (50, 200)),
    *(_useless(labels) for labels in (50, 200)),
    *(_kappa(rate, JUDGES[0], n, samples) for rate in (0.02, 0.1, 0.4) for n, samples in ((24, 20), (50, 1))),
    *(_scores(n, samples, ranks) for n, samples in ((24, 10), (50, 1)) for ranks in (False, True)),
]


def _explained(case: Case) -> Case:
    """The case with the reason why its interval may be wider than it has to be."""
    if case.what.endswith("corrected_rates"):
        return replace(case, cautious=AT_ZERO if case.setting.startswith("rate 0,") else ALIKE)
    if case.setting.startswith("kappa"):
        return replace(case, cautious=RARE if "rate 0.02" in case.setting else ALIKE)
    if "change" in case.what:
        return replace(case, cautious=ALIKE)
    return replace(case, why=FEW) if "24 questions x 10" in case.setting else case


CASES = [_explained(case) for case in _CASES]
