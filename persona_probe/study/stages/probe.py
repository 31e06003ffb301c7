"""Stage 7: linear probes, tested on topics on which they were not trained, and compared with words alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from persona_probe.activations.activations import Activations
from persona_probe.activations.embeddings import embed
from persona_probe.amplification.recipes.contrast_of_context import under_prompts
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.models.model import Model
from persona_probe.probes.baselines import EMBEDDINGS, SHUFFLED, WORDS, probe_with_baselines
from persona_probe.probes.probe_result import PROBE
from persona_probe.study.context import Context
from persona_probe.study.stage import Stage
from persona_probe.study.stages.find import Found
from persona_probe.study.stages.track import Tracked
from persona_probe.study.workload import Sizes, Work

_FEWEST_GROUPS = 5
_SAME = 0.01
"""AUROC difference below which a baseline counts as equal to the probe."""


def probe(context: Context, found: Found, tracked: Tracked) -> None:
    """Probe twice: the after model's own answers, and the same answers under two system prompts.

    The first probe separates misaligned from aligned answers, which words alone may do too. For the second, the model
    before reads the very same answers as the trait's persona and as the default one, so that no word of them helps.

    The reported layer is the one that was chosen for the direction, so that no layer is chosen on the test topics.
    """
    layer = tracked.layer
    if found.answers is not None:
        activations, misaligned, dialogues = found.answers
        if _enough_groups(context, activations, misaligned):
            measured = _measure(context, "probe", context.after, activations, misaligned, dialogues, layer)
            context.results["probe"] = measured
            if measured["token_embeddings"] >= measured["auroc_unseen_topics"] - _SAME:
                context.notes.append(
                    "The mean token embedding of the answers separates misaligned from aligned as well as the probe "
                    f"does (AUROC {measured['token_embeddings']:.3f} and {measured['auroc_unseen_topics']:.3f} on "
                    "unseen topics): the probe may read no more than which words the answers contain."
                )
    poles = (found.contrast.trait, found.contrast.default)
    prompts = (context.material.trait_prompts, context.material.default_prompts)
    both = Activations.concatenate(poles)
    trait = np.arange(len(both)) < len(poles[0])
    if _enough_groups(context, both, trait):
        same_words = [dialogue for some in prompts for dialogue in under_prompts(found.own, some)]
        context.results["probe_same_words"] = _measure(
            context, "probe_same_words", context.before, both, trait, same_words, layer
        )


def _groups(activations: Activations) -> np.ndarray:
    """The topic of each dialogue, or its question if it has no topic."""
    names = activations.table["group"].fillna(activations.table["question"])
    return np.asarray(names.astype(str).to_numpy())


def _enough_groups(context: Context, activations: Activations, labels: np.ndarray) -> bool:
    groups = _groups(activations)
    counts = [len(set(groups[mask])) for mask in (labels, ~labels)]
    if min(counts) >= _FEWEST_GROUPS:
        return True
    context.notes.append(
        f"There are positive dialogues in {counts[0]} topics and negative ones in {counts[1]}; to test a probe on "
        f"topics on which it was not trained, both are needed in at least {_FEWEST_GROUPS}, so no probe was trained."
    )
    return False


def _measure(
    context: Context,
    name: str,
    model: Model,
    activations: Activations,
    labels: np.ndarray,
    dialogues: Sequence[Dialogue],
    layer: int,
) -> dict[str, Any]:
    """The results of a probe that is cross-validated by topic; its table ``name`` is written too."""
    measured = probe_with_baselines(
        activations,
        labels,
        groups=_groups(activations),
        dialogues=dialogues,
        embeddings=embed(model, dialogues),
        seed=context.config.seed,
        on_leak="ignore",
    )
    context.store(name, measured)
    table, scores = measured.table, measured.scores
    context.notes.extend(f"Probe, training and test: {leak}." for leak in scores.alarms)
    table = table.rename(columns={"value": "auroc"})
    table = table.assign(chosen=(table["layer"] == layer) & (table["baseline"] == PROBE))
    context.folder.write_table(name, table)
    at_layer = table[table["layer"] == layer].set_index("baseline")
    numbers = {column: at_layer[column].astype(float) for column in ("auroc", "low", "high")}
    return {
        "layer": layer,
        "verdict": measured.verdict(layer),
        "auroc_unseen_topics": float(numbers["auroc"][PROBE]),
        "low": float(numbers["low"][PROBE]),
        "high": float(numbers["high"][PROBE]),
        "n": len(scores.labels),
        "bag_of_tokens": float(numbers["auroc"][WORDS]),
        "token_embeddings": float(numbers["auroc"][EMBEDDINGS]),
        "shuffled_labels": float(numbers["auroc"][SHUFFLED]),
    }


def _work(_sizes: Sizes) -> Work:
    return Work()  # earlier stages read what it probes


PROBED = Stage(
    "probe",
    probe,
    work=_work,
    settings=("seed",),
    material=("trait_prompts", "default_prompts"),
    needs=("find", "track"),
)
