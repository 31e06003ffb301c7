"""Verdicts on amplification, and the layer at which they are given.

After and control are runs of two recipes, in 32 dimensions, read on 24 questions with one dialogue each. What the two
recipes do differs only where a "true extra shift" is given, so that a size is the share of false findings. "SD of runs"
is how much runs of one recipe differ in their mean change, in SD of the reference (200 dialogues), in every dimension;
"3 x more along it": and along the direction three times as much, added independently. "Shared" is what every run of
both recipes does along the direction. With 30 layers, which are independent or correlated with their neighbours as
given, the layer is that of `choose_layer` on other texts of the same models, unless said. 100 random directions, 300
sign flips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.coverage.case import Case, Kind
from benchmarks.coverage.fine_tunes import (
    AXIS,
    SCALE,
    Floats,
    Recipe,
    axis,
    captures,
    direction,
    from_shuffled_labels,
    reference,
)
from persona_probe.amplification.amplification import measure_amplification
from persona_probe.amplification.amplification_result import Amplification, choose_layer
from persona_probe.amplification.verdict import MARGIN

ROSE, FELL = ("AMPLIFIED", "SHARED"), ("REDUCED",)
"""The findings that say that after rose more than the control, and that it fell."""
NAME = "Amplification.finding"
IN_ONE_RUN = "it says that this run moved, which it did, and not that the recipe does"


@dataclass(frozen=True)
class Setting:
    """Runs of after and of control, and at which layer the verdict is given.

    Attributes:
        recipe: of both.
        runs: of each.
        layers: number of layers.
        extra: the true extra shift of after, in SD.
        extra_at: ``all layers``, or ``one layer``, the middle one.
        at: ``chosen`` layer (the only one, or that of `choose_layer`), or ``any`` of them.
        shuffled: whether the direction comes from shuffled labels.
    """

    recipe: Recipe
    runs: int = 1
    layers: int = 1
    extra: float = 0.0
    extra_at: str = "all layers"
    at: str = "chosen"
    shuffled: bool = False

    def findings(self, rng: np.random.Generator) -> list[str]:
        """The names of the findings in one study: at the chosen layer, or at all layers."""
        vectors = from_shuffled_labels(rng, self.layers) if self.shuffled else axis(self.layers)
        more = np.zeros((self.layers, SCALE.size))
        more[slice(None) if self.extra_at == "all layers" else self.layers // 2, AXIS] = self.extra * SCALE[AXIS]
        runs = [(self.recipe.run(rng, vectors) + more, self.recipe.run(rng, vectors)) for _ in range(self.runs)]
        measured = self._measured(rng, vectors, runs)
        if self.at == "any":
            return [measured.finding(layer).name for layer in measured.layers]
        layer = 0 if self.layers == 1 else choose_layer(self._measured(rng, vectors, runs))
        return [measured.finding(layer).name]

    def _measured(self, rng: np.random.Generator, vectors: Floats, runs: list[tuple[Floats, Floats]]) -> Amplification:
        return measure_amplification(
            direction(vectors),
            captures(rng, runs, samples=1),
            reference(rng, self.layers),
            n_random=100,
            n_permutations=300,
            seed=int(rng.integers(2**31)),
            allow_unrelated=True,
        )

    def __str__(self) -> str:
        recipe = self.recipe
        parts = [f"{self.runs} + {self.runs} run{'s' * (self.runs > 1)}"]
        parts += [f"{self.layers} layers"] * (self.layers > 1)
        parts += [f"SD of runs {recipe.run_sd:g}{', 3 x more along it' * (recipe.along > 0)}"]
        parts += [f"shared {recipe.shared:g} SD"] * (recipe.shared != 0)
        parts += [f"neighbours correlated {recipe.alike:g}"] * (recipe.alike > 0)
        parts += ["shuffled-label direction"] * self.shuffled
        parts += [f"true extra shift {self.extra:g} SD{f' at {self.extra_at}' * (self.layers > 1)}"] * (self.extra != 0)
        parts += ["any layer"] * (self.at == "any")
        return ", ".join(parts)

    @property
    def cost(self) -> float:
        """Milliseconds."""
        once = 4.0 * self.layers * (0.7 + 0.4 * self.runs)
        return once * 2 if self.layers > 1 and self.at == "chosen" else once


def _case(setting: Setting, kind: Kind, names: tuple[str, ...], says: str, why: str = "") -> Case:
    """Whether the finding is one of these."""

    def draw(rng: np.random.Generator) -> bool:
        return any(name in names for name in setting.findings(rng))

    return Case(f"{NAME}: {says}", str(setting), kind, draw, why, setting.cost)


def false_finding(setting: Setting) -> Case:
    """How often after is called amplified though the recipes do the same."""
    return _case(setting, "size", ROSE, "amplified, where it is not")


def true_finding(setting: Setting) -> Case:
    """How often after is called amplified where it is."""
    return _case(setting, "power", ROSE, "amplified, where it is")


SAME = Recipe(run_sd=0.0)
PLAIN = Recipe()
SHARED = Recipe(shared=1.0)
ALONG = Recipe(run_sd=0.3, along=0.9)
DIFFER = Recipe(run_sd=0.3)
RECIPES = (SAME, PLAIN, SHARED, ALONG, replace(ALONG, shared=1.0))
CORRELATED = (replace(SHARED, alike=0.8), replace(ALONG, alike=0.8), replace(ALONG, alike=0.95))
EXTRAS = (0.5, 1.0, 2.0, 3.0)
CASES = [
    *(false_finding(Setting(recipe, runs)) for runs in (1, 3, 5) for recipe in RECIPES),
    *(false_finding(Setting(recipe, 2)) for recipe in (PLAIN, ALONG)),
    *(false_finding(Setting(PLAIN, runs, shuffled=True)) for runs in (1, 3, 5)),
    *(false_finding(Setting(recipe, runs, 30)) for runs in (1, 3, 5) for recipe in (SHARED, ALONG)),
    *(false_finding(Setting(recipe, runs, 30)) for runs in (1, 3) for recipe in CORRELATED),
    *(false_finding(Setting(PLAIN, runs, 30, shuffled=True)) for runs in (1, 3)),
    *(false_finding(Setting(recipe, runs, 30, at="any")) for runs in (3, 5) for recipe in (SHARED, ALONG)),
    *(
        _case(Setting(recipe, runs, layers), "size", FELL, "reduced, where it is not")
        for runs, layers in ((1, 1), (3, 1), (3, 30), (5, 1))
        for recipe in (PLAIN, ALONG)
    ),
    *(true_finding(Setting(DIFFER, runs, extra=extra)) for runs in (3, 5) for extra in EXTRAS),
    *(
        true_finding(Setting(DIFFER, runs, 30, extra, where))
        for runs, where, extras in ((3, "one layer", EXTRAS), (5, "one layer", EXTRAS), (3, "all layers", EXTRAS[:2]))
        for extra in extras
    ),
    *(
        _case(Setting(recipe, 1, layers), "size", ("ONE_RUN",), "moved, one run, as the control", IN_ONE_RUN)
        for layers in (1, 30)
        for recipe in (PLAIN, ALONG)
    ),
    *(
        _case(Setting(recipe, runs, extra=MARGIN), "size", ("NOT_AMPLIFIED",), "not amplified, at the margin")
        for runs in (1, 3, 5)
        for recipe in (SAME, DIFFER)
    ),
    *(
        _case(Setting(recipe, runs), "power", ("NOT_AMPLIFIED",), "not amplified, where nothing is")
        for runs in (1, 3, 5)
        for recipe in (SAME, Recipe(run_sd=0.05), DIFFER)
    ),
]
