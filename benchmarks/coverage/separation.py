"""Cases of how well scores separate two classes, of a quantile, and of a direction's card."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

import persona_probe as pp
from benchmarks.coverage.case import Case
from persona_probe.statistics.auroc import auroc_estimate
from persona_probe.statistics.average_precision import average_precision, average_precision_estimate
from persona_probe.statistics.quantiles import quantile_estimate

GROUP_SD = 0.7
Rng = np.random.Generator
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Scores:
    """Scores of ``groups`` groups of rows, whose noise has SD 1 and whose groups are moved by `GROUP_SD`.

    Attributes:
        groups: how many.
        uneven: SD over groups of the separation, as a share of its mean.
        mixed: whether each group holds both classes.
        rows: of each class in a mixed group; twice as many of the one class of another.
    """

    groups: int
    uneven: float = 0.0
    mixed: bool = True
    rows: int = 10

    def __str__(self) -> str:
        """In words."""
        kind = f"{self.rows}+{self.rows} rows" if self.mixed else f"{2 * self.rows} rows of one class"
        uneven = f", separation differs between groups by {self.uneven:.0%}" if self.uneven else ""
        return f"{self.groups} groups of {kind}{uneven}"

    def auroc(self, separation: float) -> float:
        """Of two rows of different groups."""
        spread = 2 * (1 + GROUP_SD**2) + 0.5 * (separation * self.uneven) ** 2
        return float(ndtr(separation / math.sqrt(spread)))

    def separation(self, auroc: float) -> float:
        """The mean separation at which `auroc` has this value."""
        return float(brentq(lambda separation: self.auroc(separation) - auroc, 0.0, 60.0))

    def draw(self, rng: Rng, separation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(row,)`` scores, labels and groups."""
        group = np.repeat(np.arange(self.groups), 2 * self.rows)
        labels = np.tile(np.repeat([True, False], self.rows), self.groups) if self.mixed else group % 2 == 0
        own = separation * (1 + self.uneven * rng.normal(size=self.groups))
        moved = GROUP_SD * rng.normal(size=self.groups)
        return moved[group] + np.where(labels, 0.5, -0.5) * own[group] + rng.normal(size=group.size), labels, group


def _auroc(scores: Scores, value: float, rounded: bool) -> Case:
    separation = scores.separation(value)

    def draw(rng: Rng) -> Interval:
        values, labels, group = scores.draw(rng, separation)
        found = auroc_estimate(np.round(values) if rounded else values, labels, groups=group)
        return found.low, found.high, value

    return Case("auroc_estimate", f"AUROC {value:g}; {scores}{', rounded scores' * rounded}", "coverage", draw, cost=3)


def _auroc_of_rows(rows: int, value: float) -> Case:
    def draw(rng: Rng) -> Interval:
        labels = np.repeat([True, False], rows)
        found = auroc_estimate(rng.normal(size=2 * rows) + math.sqrt(2) * float(ndtri(value)) * labels, labels)
        return found.low, found.high, value

    return Case("auroc_estimate", f"AUROC {value:g}; {rows}+{rows} independent rows", "coverage", draw)


def _auroc_of_seeds(seeds: int, value: float, seed_sd: float) -> Case:
    """Runs whose separation differs; the truth is that of a pair of rows of any two runs."""
    groups, rows = 12, 4
    part = 2 * (1 + GROUP_SD**2)
    separation = brentq(lambda d: ndtr(d / math.sqrt(part + 0.5 * (d * seed_sd) ** 2)) - value, 0.0, 60.0)

    def draw(rng: Rng) -> Interval:
        group, seed, _ = (codes.ravel() for codes in np.indices((groups, seeds, 2 * rows)))
        labels = np.tile(np.repeat([True, False], rows), groups * seeds)
        own = separation * (1 + seed_sd * rng.normal(size=seeds))
        moved = GROUP_SD * rng.normal(size=groups)[group] + np.where(labels, 0.5, -0.5) * own[seed]
        found = auroc_estimate(moved + rng.normal(size=group.size), labels, groups=group, seeds=seed)
        return found.low, found.high, value

    setting = f"AUROC {value:g}; {groups} groups x {seeds} seeds, separation differs between seeds by {seed_sd:.0%}"
    return Case("auroc_estimate(seeds=)", setting, "coverage", draw, cost=3)


@functools.cache
def _true_precision(scores: Scores, separation: float) -> float:
    many = Scores(4_000, scores.uneven, scores.mixed, scores.rows)
    values, labels, _ = many.draw(np.random.default_rng(0), separation)
    return average_precision(values, labels)


def _precision(scores: Scores, auroc: float) -> Case:
    separation = scores.separation(auroc)

    def draw(rng: Rng) -> Interval:
        values, labels, group = scores.draw(rng, separation)
        found = average_precision_estimate(values, labels, groups=group)
        return found.low, found.high, _true_precision(scores, separation)

    return Case("average_precision_estimate", f"AUROC {auroc:g}; {scores}", "coverage", draw, cost=4)


def _quantile(questions: int, rows: int, q: float, question_sd: float, seeds: int = 1, seed_sd: float = 0.0) -> Case:
    """Lognormal values, as of a divergence; questions (and seeds) move their logarithm."""
    truth = math.exp(math.sqrt(1 + question_sd**2 + seed_sd**2) * float(ndtri(q)))

    def draw(rng: Rng) -> Interval | None:
        question, seed, _ = (codes.ravel() for codes in np.indices((questions, seeds, rows)))
        moved = question_sd * rng.normal(size=questions)[question] + seed_sd * rng.normal(size=seeds)[seed]
        values = np.exp(moved + rng.normal(size=question.size))
        found = quantile_estimate(values, q, questions=question, seeds=seed if seeds > 1 else None)
        return None if math.isnan(found.low) else (found.low, found.high, truth)

    of_seeds = f" x {seeds} seeds (SD {seed_sd:g})" if seeds > 1 else ""
    setting = f"{q:.0%} quantile; {questions} questions (SD {question_sd:g}) of {rows} rows{of_seeds}, lognormal"
    return Case("quantile_estimate", setting, "coverage", draw)


def _cross_validated(groups: int, separation: float, mixed: bool, kind: str, mean: float, cost: float) -> Case:
    """The truth is the AUROC that this cross-validation reaches on average over 2,000 data sets (given as ``mean``)."""

    def draw(rng: Rng) -> Interval:
        row = cross_validated_row(rng, groups, separation, mixed, kind)
        return float(row["low"]), float(row["high"]), mean

    side = "6+6 rows" if mixed else "12 rows of one class"
    setting = f"{kind}, 16 dimensions, {groups} groups of {side}, separation {separation:g} SD, probe fitted anew"
    return Case(
        "pp.probes.cross_validate_probe",
        setting,
        "coverage",
        draw,
        "wide: the margin for shared training rows is cautious",
        cost,
    )


def cross_validated_row(rng: Rng, groups: int, separation: float, mixed: bool, kind: str) -> pd.Series:
    """One cross-validation of a probe on a new data set: its row of the table."""
    group = np.repeat(np.arange(groups), 12)
    labels = np.tile(np.repeat([True, False], 6), groups) if mixed else group % 2 == 0
    values = GROUP_SD * rng.normal(size=(groups, 16))[group] + rng.normal(size=(group.size, 16))
    values[:, 0] += np.where(labels, 0.5, -0.5) * separation
    table = pd.DataFrame({"id": [str(row) for row in range(group.size)]})
    activations = pp.Activations(values[:, None].astype(np.float32), table, (0,))
    scores = pp.probes.cross_validate_probe(
        activations, labels, groups=group.astype(str), kind=kind, on_leak="ignore", seed=int(rng.integers(10**6))
    )
    return scores.table.iloc[0]


@dataclass(frozen=True)
class Cards:
    """Two poles of 16 dimensions whose rows have noise of SD 1, and the card of the direction between them.

    Attributes:
        questions: in each pole.
        rows: of each question in each pole; with ``unequal``, 1 to twice as many.
        clustered: SD of what rows of one question in one pole share.
        shared: SD of what a question has in both poles.
        shared_questions: whether both poles hold the same questions.
        unequal: whether numbers of rows differ.
        effect: how far the poles differ, in SD of the noise.
    """

    questions: int
    rows: int
    clustered: float = 0.0
    shared: float = 0.0
    shared_questions: bool = True
    unequal: bool = False
    effect: float = 0.0

    def __str__(self) -> str:
        """In words."""
        rows = f"1 to {2 * self.rows}" if self.unequal else f"{self.rows}"
        where = "both poles hold" if self.shared_questions else "poles hold different,"
        effect = f", poles differ by {self.effect:g} SD" if self.effect else ", poles do not differ"
        return (
            f"{where} {self.questions} questions of {rows} rows, question x pole SD {self.clustered:g}, question SD "
            f"{self.shared:g}{effect}"
        )

    def checks(self, rng: Rng, method: str = "mean-difference", repeats: int = 1) -> dict[str, list[float] | None]:
        """The checks of one card."""
        base = self.shared * rng.normal(size=(2 * self.questions, 16))
        sides = []
        for side in (0, 1):
            counts = rng.integers(1, 2 * self.rows + 1, self.questions) if self.unequal else self.rows
            question = np.repeat(np.arange(self.questions), counts)
            question = question if self.shared_questions or not side else question + self.questions
            moved = base + self.clustered * rng.normal(size=base.shape)
            values = moved[question] + rng.normal(size=(question.size, 16))
            values[:, 0] += self.effect * (side == 0)
            pairs = self.shared_questions and not self.unequal
            ids = [f"{'' if pairs else side} {row}" for row in range(question.size)]
            table = pd.DataFrame({"id": ids, "question": [f"q{number}" for number in question]})
            sides.append(pp.Activations(values[:, None].astype(np.float32), table, (0,)))
        found = pp.find_direction(*sides, method, repeats=repeats, seed=int(rng.integers(10**6)))
        checks: dict[str, list[float] | None] = found.card["checks"]
        return checks


def _longer(cards: Cards, method: str = "mean-difference", repeats: int = 1) -> Case:
    """Is the direction longer than 97.5 % of those from exchanged labels? (Nominal: 2.5 %.)"""

    def draw(rng: Rng) -> bool:
        longest = cards.checks(rng, method, repeats)["shuffled_norm"]
        return longest is not None and longest[0] < 1.0

    kind = "power" if cards.effect else "size"
    cost = 5.0 if repeats == 1 else 300.0
    return Case("card: longer than shuffled_norm", f"{method}; {cards}", kind, draw, cost=cost)  # type: ignore[arg-type]


def _agree(cards: Cards) -> Case:
    """Do halves of the questions agree more than 97.5 % of directions from exchanged labels do with this one?"""

    def draw(rng: Rng) -> bool:
        checks = cards.checks(rng, repeats=20)
        agreement, chance = checks["split_half_cosine"], checks["shuffled_cosine"]
        return agreement is not None and chance is not None and agreement[0] > chance[0]

    kind = "power" if cards.effect else "size"
    return Case("card: split_half_cosine above shuffled_cosine", str(cards), kind, draw, cost=60)  # type: ignore[arg-type]


def _reachable(scores: Scores, value: float) -> bool:
    return scores.auroc(60.0) > value


# groups, separation, whether groups hold both classes, kind, mean AUROC over 2,000 data sets (600 for logistic; at
# separation 0 it is 0.5 by symmetry), milliseconds
_CROSS_VALIDATED: tuple[tuple[int, float, bool, str, float, float], ...] = (
    (6, 1.0, True, "difference-of-means", 0.6752, 10),
    (12, 0.0, True, "difference-of-means", 0.5, 12),
    (12, 1.0, True, "difference-of-means", 0.6927, 12),
    (12, 2.5, True, "difference-of-means", 0.9322, 12),
    (24, 1.0, True, "difference-of-means", 0.7042, 18),
    (24, 0.0, False, "difference-of-means", 0.5, 18),
    (24, 1.5, False, "difference-of-means", 0.7393, 18),
    (12, 1.0, True, "logistic", 0.6754, 40),
)
_GROUPS = (6, 12, 24, 48)
_KINDS: tuple[Callable[[int], Scores], ...] = (
    Scores,
    lambda groups: Scores(groups, uneven=0.5),
    lambda groups: Scores(groups, mixed=False),
    lambda groups: Scores(groups, uneven=0.3, mixed=False),
)
_SCORES = [kind(groups) for kind in _KINDS for groups in _GROUPS]

_CASES: list[Case] = [
    *(
        _auroc(scores, value, rounded=False)
        for scores in _SCORES
        for value in (0.5, 0.7, 0.9, 0.97, 0.99, 0.999)
        if _reachable(scores, value)
    ),
    *(_auroc(Scores(groups), 0.5, rounded=True) for groups in (6, 24)),
    *(_auroc_of_rows(rows, value) for rows in (15, 50) for value in (0.5, 0.9, 0.99)),
    *(_auroc_of_seeds(seeds, value, sd) for seeds in (3, 5) for value in (0.7, 0.9, 0.97) for sd in (0.0, 0.2)),
    *(
        _precision(scores, value)
        for scores in _SCORES
        if scores.groups in (6, 24)
        for value in (0.5, 0.7, 0.9, 0.99)
        if _reachable(scores, value)
    ),
    *(
        _quantile(questions, rows, q, sd)
        for questions, rows in ((8, 10), (24, 10), (48, 10), (100, 1))
        for q in (0.5, 0.95)
        for sd in (0.0, 1.0)
    ),
    *(_quantile(24, 10, q, 0.5, seeds, sd) for q in (0.5, 0.95) for seeds in (3, 5) for sd in (0.0, 0.3)),
    *(_cross_validated(*setting) for setting in _CROSS_VALIDATED),
    _longer(Cards(24, 1)),
    _longer(Cards(24, 4)),
    _longer(Cards(24, 10, clustered=0.7)),
    _longer(Cards(24, 10, shared=2.0)),
    _longer(Cards(24, 4, clustered=0.5, shared=1.0)),
    _longer(Cards(7, 4, clustered=0.7)),
    _longer(Cards(24, 4, clustered=0.7, shared=1.0, unequal=True)),
    _longer(Cards(12, 1, shared_questions=False)),
    _longer(Cards(12, 10, clustered=0.7, shared=1.0, shared_questions=False)),
    _longer(Cards(12, 4, clustered=0.7, shared_questions=False, unequal=True)),
    _longer(Cards(12, 4, clustered=0.7), "pca", 39),
    _longer(Cards(12, 4, clustered=0.7), "lda", 39),
    _agree(Cards(24, 4)),
    _agree(Cards(24, 10, clustered=0.7)),
    _agree(Cards(24, 10, shared=2.0)),
    _longer(Cards(24, 4, clustered=0.5, effect=1.0)),
    _longer(Cards(24, 4, shared=2.0, effect=1.0)),
    _longer(Cards(24, 4, shared=2.0, effect=1.0, unequal=True)),
    _longer(Cards(12, 4, clustered=0.7, shared_questions=False, effect=2.0)),
    _agree(Cards(24, 4, clustered=0.5, effect=1.0)),
]

FEW_OR_NEAR = "few groups, or near 1: the worst group counts twice, and degrees of freedom are capped"
ALIKE = "where seeds add little, the larger of the one-way and the two-way variance is taken"
PREVALENCE = "leaving out a group changes the share of positive rows, fixed here, which the interval counts as error"
ON_ROWS = "an end lies on a row: the next one outwards"


def _explained(case: Case) -> Case:
    """The case with the reason that its estimate gives for being cautious."""
    reasons = {"auroc_estimate(seeds": ALIKE, "auroc": FEW_OR_NEAR, "average": PREVALENCE, "quantile": ON_ROWS}
    cautious = next((why for start, why in reasons.items() if case.what.startswith(start)), "")
    return replace(case, cautious=case.cautious or cautious)


CASES = [_explained(case) for case in _CASES]
