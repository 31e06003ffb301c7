"""Stage 6: every finder on the same poles, scored on the same held-out dialogues."""

from __future__ import annotations

from persona_probe.activations.activations import Activations
from persona_probe.amplification.finder_comparison import compare_finders
from persona_probe.amplification.recipes.contrast_of_context import under_prompts
from persona_probe.study.context import Context
from persona_probe.study.stage import Stage
from persona_probe.study.stages.find import CONTEXT, Found
from persona_probe.study.stages.track import Tracked
from persona_probe.study.workload import Sizes, Work


def compare(context: Context, found: Found, tracked: Tracked) -> None:
    """Read the reported answers under both contexts, and score all finders and directions on them at one layer."""
    config, material = context.config, context.material

    def read(prompts: list[str]) -> Activations:
        return context.executor.capture(
            context.before, under_prompts(tracked.texts, prompts), progress=context.progress
        )

    comparison = compare_finders(
        found.contrast.trait,
        found.contrast.default,
        (read(material.trait_prompts), read(material.default_prompts)),
        tracked.captures,
        found.reference,
        others={name: direction for name, direction in found.directions.items() if name != CONTEXT},
        other_traits=found.other_traits,
        layer=tracked.layer,
        n_random=config.random_directions,
        seed=config.seed,
    )
    context.folder.write_table("finders", comparison)
    context.folder.write_table("finder_cosines", comparison.cosines)
    context.store("finders", comparison)
    context.results["finders"] = {"verdict": comparison.verdict()}


def _work(sizes: Sizes) -> Work:
    return sizes.work(sizes.material.reported, texts=2 * len(sizes.material.reported))


COMPARE = Stage(
    "compare",
    compare,
    work=_work,
    settings=("seed", "random_directions"),
    material=("trait_prompts", "default_prompts"),
    needs=("find", "track"),
)
