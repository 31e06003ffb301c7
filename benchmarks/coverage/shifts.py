"""Shifts along a direction in SD, specificities, and what a sample could have detected.

Synthetic runs as in the section on amplification, at one layer. The truth of a shift is in the true SD of the before
model's activations, not in that of the reference dialogues that happened to be drawn. "Elsewhere" is a shift of after
along the dimension with the largest variance, which moves random directions. The true specificity is that with the
reference dialogues and random directions that were drawn, unless said.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from benchmarks.coverage.answers import asked
from benchmarks.coverage.case import Case
from benchmarks.coverage.fine_tunes import AXIS, SCALE, WIDTH, Floats, Recipe, axis, captures, direction, reference
from benchmarks.coverage.rates import ONE_RUN
from persona_probe.amplification.amplification import measure_amplification
from persona_probe.amplification.amplification_result import Amplification, choose_layer
from persona_probe.amplification.verdict import Row
from persona_probe.statistics.clustered_variance import clustered_variance
from persona_probe.statistics.nulls import matched_random_directions
from persona_probe.statistics.power import smallest_detectable
from persona_probe.statistics.rates import mean_estimate

SHIFT, CONTRAST = "Amplification: shift_sd", "Amplification: contrast_sd (after minus control)"
SPECIFICITY = "Amplification: specificity"
DETECTABLE = "detectable_sd, put as the true shift into new data (80 % is meant)"
THESE_MODELS = (
    "one run each: two exchangeable runs do differ, and the interval over questions is about these two models"
)
FEW_DIALOGUES = (
    "the reference's SD is known from 20 dialogues or questions, and how well it is known is estimated from the same "
    "20; 50 are enough"
)
FEW_RUNS = (
    "the t of three or five runs and the error of the reference's SD are added by squares, which is a little wide"
)
SAME_RUNS = (
    "runs do not differ, and a two-way variance, which is at least as large as each of its parts, is too large then"
)
NOISY_QUANTILE = (
    "the denominator is a quantile of shifts that are known with noise; its correction is approximate, which shows "
    "where the control hardly moves and the numerator is known well"
)
AS_DRAWN = "the interval is about the reference and the random directions that were drawn, and not about all of them"
VALUE_ALONE = "a value without its interval; the verdict asks for the whole interval and for the test over runs"
Ends = tuple[float, float, float]


def _measured(
    rng: np.random.Generator, after: list[Floats], control: list[Floats], n_random: int = 20
) -> Amplification:
    """At one layer; ``after`` and ``control`` hold each run's mean change ``(d_model,)``."""
    runs = [(first[None], second[None]) for first, second in zip(after, control, strict=True)]
    return measure_amplification(
        direction(axis(1)),
        captures(rng, runs),
        reference(rng, 1),
        n_random=n_random,
        n_permutations=20,
        seed=int(rng.integers(2**31)),
        allow_unrelated=True,
    )


def _moved(along: float, elsewhere: float = 0.0) -> Floats:
    """``(d_model,)`` a change by so many SD along the direction and along the dimension with the largest variance."""
    change = np.zeros(WIDTH)
    change[AXIS], change[0] = along * SCALE[AXIS], elsewhere * SCALE[0]
    return change


def _shift(shift: float, dialogues: int, per_question: int = 1, questions: int = 24) -> Case:
    """Two given models; what varies is the texts and the reference."""

    def draw(rng: np.random.Generator) -> Ends:
        row, _ = measure_amplification(
            direction(axis(1)),
            captures(rng, [(_moved(shift)[None], np.zeros((1, WIDTH)))], questions=questions),
            reference(rng, 1, dialogues, per_question),
            n_random=20,
            n_permutations=20,
            allow_unrelated=True,
        ).rows(0)
        return row["low_sd"], row["high_sd"], shift

    clustered = f" ({dialogues // per_question} questions x {per_question}, half of the variance between questions)"
    setting = f"{shift:g} SD, {questions} questions x 2, {dialogues} reference dialogues"
    why = FEW_DIALOGUES if dialogues // per_question <= 20 else ""
    return Case(SHIFT, setting + clustered * (per_question > 1), "coverage", draw, why, cost=10.0)


def shift_of_runs(shift: float, runs: int, run_sd: float, of: str) -> Case:
    """Runs that differ."""
    recipe = Recipe(run_sd, shared=shift)

    def draw(rng: np.random.Generator) -> Ends:
        after = [recipe.run(rng, axis(1))[0] for _ in range(runs)]
        control = [Recipe(run_sd).run(rng, axis(1))[0] for _ in range(runs)]
        row, _ = _measured(rng, after, control).rows(0)
        own = float(np.mean([change[AXIS] for change in after]) / SCALE[AXIS])
        return row["low_sd"], row["high_sd"], own if of == "this run" else shift

    setting = f"{shift:g} SD, {runs} run{'s' * (runs > 1)}, SD of runs {run_sd:g}; truth: of {of}"
    why = ONE_RUN if runs == 1 and of == "the recipe" else ""
    return Case(SHIFT, setting, "coverage", draw, why, 12.0, cautious=FEW_RUNS if runs > 1 else "")


def _contrast(extra: float, runs: int, run_sd: float, of: str) -> Case:
    """After minus control."""
    recipe, benign = Recipe(run_sd, shared=1.0 + extra), Recipe(run_sd, shared=1.0)

    def draw(rng: np.random.Generator) -> Ends:
        after, control = ([which.run(rng, axis(1))[0] for _ in range(runs)] for which in (recipe, benign))
        row, _ = _measured(rng, after, control).rows(0)
        own = float(np.mean([a[AXIS] - c[AXIS] for a, c in zip(after, control, strict=True)]) / SCALE[AXIS])
        return row["contrast_low_sd"], row["contrast_high_sd"], own if of == "these runs" else extra

    setting = f"{extra:g} SD, {runs} + {runs} run{'s' * (runs > 1)}, SD of runs {run_sd:g}; truth: of {of}"
    why = ONE_RUN if runs == 1 and run_sd > 0 and of == "the recipe" else ""
    return Case(CONTRAST, setting, "coverage", draw, why, 12.0, cautious=SAME_RUNS if runs > 1 and run_sd == 0 else "")


@lru_cache
def _random_directions() -> tuple[Floats, Floats]:
    """``(direction, d_model)`` random directions with the covariance of activations, and the SD along each."""
    drawn = np.random.default_rng(0).standard_normal((50_000, WIDTH)) * SCALE
    return drawn, np.linalg.norm(drawn * SCALE, axis=1)


def _true_specificity(after: Floats, control: Floats, random: Floats, spreads: Floats, sd: float) -> float:
    """Of two mean changes ``(d_model,)``, with random directions, the SD along each, and that along the direction."""
    quantile = float(np.quantile(np.abs(random @ (after - control)) / spreads, 0.975))
    along, benign = after[AXIS] / sd, control[AXIS] / sd
    return abs(along - benign) / max(abs(benign), quantile)


def _specificity(
    after: float, control: float, elsewhere: float, runs: int, run_sd: float, of: str, yardstick: str = "as drawn"
) -> Case:
    """With the reference dialogues and random directions as drawn, or as they are in truth."""

    def draw(rng: np.random.Generator) -> Ends:
        means = _moved(after, elsewhere), _moved(control)
        recipe = Recipe(run_sd)
        tuned, benign = ([mean + recipe.run(rng, axis(1))[0] for _ in range(runs)] for mean in means)
        drawn, seed = reference(rng, 1), int(rng.integers(2**31))
        row, _ = measure_amplification(
            direction(axis(1)),
            captures(rng, [(first[None], second[None]) for first, second in zip(tuned, benign, strict=True)]),
            drawn,
            n_random=1000,
            n_permutations=20,
            seed=seed,
            allow_unrelated=True,
        ).rows(0)
        pair = means if of == "the recipe" else (tuned[0], benign[0])
        if yardstick == "in truth":
            truth = _true_specificity(*pair, *_random_directions(), SCALE[AXIS])
        else:
            values = drawn.at(0).astype(float)
            random = matched_random_directions(values, 1000, seed)
            spreads = (values @ random.T).std(axis=0, ddof=1)
            truth = _true_specificity(*pair, random, spreads, float(values[:, AXIS].std(ddof=1)))
        return row["specificity_low"], row["specificity_high"], truth

    setting = f"after {after:g}, control {control:g}, elsewhere {elsewhere:g} SD, {runs} run{'s' * (runs > 1)}"
    differ = f", SD of runs {run_sd:g}; truth: of {of}" if run_sd > 0 else ""
    why = NOISY_QUANTILE if yardstick == "as drawn" else AS_DRAWN
    why = ONE_RUN if runs == 1 and run_sd > 0 and of == "the recipe" else why
    ruler = "" if yardstick == "as drawn" else "; with the SDs and random directions as they are in truth"
    return Case(SPECIFICITY, setting + differ + ruler, "coverage", draw, why, 25.0)


def exchangeable(recipe: Recipe, runs: int, layers: int, whole_interval: bool) -> Case:
    """How often a specificity is above 1 though after and control are runs of one recipe."""

    def draw(rng: np.random.Generator) -> bool:
        vectors = axis(layers)
        pairs = [(recipe.run(rng, vectors), recipe.run(rng, vectors)) for _ in range(runs)]

        def measured() -> Amplification:
            return measure_amplification(
                direction(vectors),
                captures(rng, pairs),
                reference(rng, layers),
                n_random=100,
                n_permutations=20,
                seed=int(rng.integers(2**31)),
                allow_unrelated=True,
            )

        layer = choose_layer(measured()) if layers > 1 else 0
        row: Row = measured().rows(layer)[0]
        return bool(row["specificity_low" if whole_interval else "specificity"] > 1)

    what = f"{SPECIFICITY}, {'whole interval' if whole_interval else 'value'} above 1 where runs are exchangeable"
    along = ", 3 x more along the direction" if recipe.along else ""
    shared = f", shared {recipe.shared:g} SD" if recipe.shared else ""
    at = f", the layer of choose_layer among {layers}" if layers > 1 else ""
    setting = f"{runs} + {runs} run{'s' * (runs > 1)}, SD of runs {recipe.run_sd:g}{along}{shared}{at}"
    why = THESE_MODELS if runs == 1 else "" if whole_interval else VALUE_ALONE
    return Case(what, setting, "size", draw, why, 12.0 * layers * (1 + (layers > 1)))


def _detectable_mean(questions: int, samples: int, runs: int, run_sd: float) -> Case:
    """The t interval of a mean."""

    def numbers(rng: np.random.Generator) -> Floats:
        question, run = asked(questions, runs, samples)
        noise = 0.8 * rng.standard_normal(question.size)
        of_question, of_run = 0.6 * rng.standard_normal(questions), run_sd * rng.standard_normal(runs)
        return np.asarray(of_question[question] + of_run[run] + noise)

    def draw(rng: np.random.Generator) -> bool:
        question, run = asked(questions, runs, samples)
        values = numbers(rng)
        spread = clustered_variance((values - values.mean()) / values.size, question, run)
        shift = smallest_detectable(spread.variance, spread.degrees_of_freedom)
        again = mean_estimate(numbers(rng) + shift, questions=question, seeds=run)
        return again.low > 0 or again.high < 0

    setting = f"mean, {questions} questions x {samples}, {runs} run{'s' * (runs > 1)}, SD of runs {run_sd:g}"
    return Case(DETECTABLE, setting, "power", draw, cost=2.0)


def _detectable(runs: int, run_sd: float, decision: str) -> Case:
    """After minus control: its interval leaves out zero, or the verdict says that after moved more."""

    def draw(rng: np.random.Generator) -> bool | None:
        def measured(shift: float) -> Amplification:
            recipe, benign = Recipe(run_sd, shared=shift), Recipe(run_sd)
            after = [recipe.run(rng, axis(1))[0] for _ in range(runs)]
            return _measured(rng, after, [benign.run(rng, axis(1))[0] for _ in range(runs)], n_random=100)

        shift = measured(0.0).rows(0)[0]["detectable_sd"]
        if not np.isfinite(shift):
            return None
        again = measured(shift)
        if decision == "verdict":
            return again.finding(0).name in ("AMPLIFIED", "ONE_RUN")
        return bool(again.rows(0)[0]["contrast_low_sd"] > 0)

    said = "verdict 'amplified'" if runs > 1 else "verdict 'moved, one run'"
    decided = said if decision == "verdict" else "interval of after minus control"
    setting = f"{decided}, 24 questions x 2, {runs} + {runs} run{'s' * (runs > 1)}, SD of runs {run_sd:g}"
    return Case(DETECTABLE, setting, "power", draw, cost=25.0)


CHANGES = ((3.0, 0.1, 1.0), (3.0, 1.5, 1.0), (2.0, 2.0, 1.0), (0.5, 0.0, 0.3), (1.0, 0.2, 3.0))
PLAIN, SHARED, ALONG = Recipe(0.5), Recipe(0.5, shared=1.0), Recipe(0.3, along=0.9)
CASES = [
    *(_shift(shift, dialogues) for dialogues in (20, 50, 200) for shift in (0.0, 1.0, 3.0)),
    *(_shift(shift, 200, per_question) for per_question in (4, 10) for shift in (1.0, 3.0)),
    *(_shift(shift, 200, questions=8) for shift in (0.0, 1.0, 3.0)),
    *(shift_of_runs(shift, runs, 0.3, "the recipe") for shift in (0.0, 1.0, 3.0) for runs in (1, 3, 5)),
    *(shift_of_runs(shift, 1, 0.3, "this run") for shift in (0.0, 1.0, 3.0)),
    *(_contrast(extra, runs, sd, "the recipe") for extra in (0.0, 1.0) for runs in (1, 3, 5) for sd in (0.0, 0.3)),
    *(_contrast(extra, 1, 0.3, "these runs") for extra in (0.0, 1.0)),
    *(_specificity(*change, 1, 0.0, "the recipe", ruler) for ruler in ("as drawn", "in truth") for change in CHANGES),
    *(_specificity(*change, runs, 0.3, "the recipe") for change in CHANGES[:3] for runs in (1, 3, 5)),
    *(_specificity(*change, 1, 0.3, "this run") for change in CHANGES[:3]),
    *(
        exchangeable(recipe, runs, 1, whole)
        for whole in (False, True)
        for runs in (1, 3)
        for recipe in (PLAIN, SHARED, ALONG)
    ),
    *(exchangeable(recipe, 1, 30, True) for recipe in (PLAIN, SHARED, ALONG)),
    *(_detectable_mean(n, samples, 1, 0.0) for n, samples in ((6, 4), (8, 4), (24, 4), (48, 1))),
    *(_detectable_mean(24, 4, runs, sd) for runs in (2, 3, 5) for sd in (0.0, 0.3)),
    *(
        _detectable(runs, sd, decision)
        for decision in ("interval", "verdict")
        for runs in (1, 3, 5)
        for sd in (0.0, 0.3)
    ),
]
