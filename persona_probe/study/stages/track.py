"""Stage 5: amplification of the direction from before to after, with its nulls, over all fine-tuning runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import Captures
from persona_probe.amplification.amplification import measure_amplification
from persona_probe.amplification.amplification_result import Amplification, choose_layer
from persona_probe.amplification.persona_space import measure_persona_space
from persona_probe.amplification.projections import measure_projections
from persona_probe.amplification.verdict import Finding
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.cosines import CosineTable
from persona_probe.runs.config import StudyConfig, n_runs
from persona_probe.statistics.replication import RELIABILITY
from persona_probe.study.context import Context
from persona_probe.study.stage import SAMPLING, Stage
from persona_probe.study.stages.find import ANSWERS, CONTEXT, SHIFT, Found
from persona_probe.study.stages.further_runs import FURTHER, briefly
from persona_probe.study.stages.train import Tuned, opened
from persona_probe.study.workload import Sizes, Work


@dataclass(frozen=True)
class Tracked:
    """What this stage hands to later ones.

    Attributes:
        layer: the layer that was chosen on development questions; where the direction replicates at none, the one at
            which its halves agree best, for analyses that need a layer.
        texts: the before model's answers to the reported questions.
        captures: the models' activations on them, of all fine-tuning runs (`Captures.over_seeds`).
    """

    layer: int
    texts: list[Dialogue]
    captures: Captures


def track(context: Context, found: Found, further: Sequence[Tuned] | None) -> Tracked:
    """Measure amplification on the before model's own answers to reported questions."""
    texts = [d for d in context.answer(context.before, context.material.reported, "reported before") if d.answer]
    config = context.config
    if len(context.models) > 2 and (why := _why_one_run(config)):
        context.notes.append(why)
    development, captures = _read(context, further or (), found.own, texts)
    chosen_on, reported = (
        measure_amplification(
            found.contrast.direction,
            read_by_all,
            found.reference,
            other_traits=found.other_traits,
            shuffled_source=(found.contrast.trait, found.contrast.default),
            n_random=config.random_directions,
            seed=config.seed,
        )
        for read_by_all in (development, captures)
    )
    nowhere, replication = reported.no_layer(), found.contrast.direction.replication
    layer = choose_layer(chosen_on) if nowhere is None else replication.most_alike
    table = reported.table.assign(chosen=(reported.table["layer"] == layer) & (nowhere is None))
    context.folder.write_table("amplification", table)
    context.store("amplification", reported)
    _place(context, found, captures, layer, chosen=nowhere is None)
    if nowhere is None:
        context.results["amplification"] = _at_layer(reported, layer)
    else:
        context.results["amplification"] = {"layer": None, "finding": Finding.NO_DIRECTION.value, "verdict": nowhere}
        context.notes.append(
            f"The persona direction has {nowhere}. Where a later analysis needs a layer, it is layer {layer}, at which "
            "halves of the questions agree best; what is said there is not about a direction that can be trusted."
        )
    context.results["amplification"]["replication"] = replication.sentence()
    context.results["direction"] = _agreement(found.cosines, layer)
    return Tracked(layer, texts, captures)


def _at_layer(reported: Amplification, layer: int) -> dict[str, Any]:
    """The numbers at the chosen layer that the report's sentences quote."""
    after, control = reported.rows(layer)
    return {
        "layer": layer,
        "shift": after["shift"],
        "shift_sd": after["shift_sd"],
        "shift_sd_low": after["low_sd"],
        "shift_sd_high": after["high_sd"],
        "control_shift_sd": None if control is None else control["shift_sd"],
        "random_sd": after["random_sd"],
        "isotropic_sd": after["isotropic_sd"],
        "specificity": after["specificity"],
        "specificity_low": after["specificity_low"],
        "specificity_high": after["specificity_high"],
        "contrast_sd": after["contrast_sd"],
        "contrast_sd_low": after["contrast_low_sd"],
        "contrast_sd_high": after["contrast_high_sd"],
        "p_corrected": after["p_corrected"],
        "p_runs": after["p_runs"],
        "n_runs": after["n_runs"],
        "finding": reported.finding(layer).value,
        "detectable_sd": after["detectable_sd"],
        "verdict": reported.verdict(layer),
        "n": after["n"],
        **{name: after[name] for name in RELIABILITY},
    }


def _why_one_run(config: StudyConfig) -> str | None:
    """Why a study that trains one of two models trains it once, whatever ``training.runs`` says; else None."""
    if n_runs(config) > 1 or (config.after is None) == (config.control is None):
        return None
    given, trained = ("after", "control") if config.control is None else ("control", "after")
    return (
        f"There is one fine-tuning run: {given!r} names one model, so {trained!r} was trained once too. For a test "
        f"over runs name a list of several trainings as {given!r}."
    )


def _read(context: Context, further: Sequence[Tuned], *texts: list[Dialogue]) -> list[Captures]:
    """What all models, of all runs, read in each list of texts."""
    together, progress = context.executor.capture_together, context.progress

    def again(tuned: Tuned, name: str) -> list[Activations]:
        # With before, whose attention sinks are those of all models; one further model is in memory at a time.
        with briefly(opened(context, tuned, name)) as model:
            return [together([context.before, model], some, progress=progress)[1] for some in texts]

    first = [Captures(*together(list(context.models.values()), some, progress=progress)) for some in texts]
    runs = [[captures] for captures in first]
    for tuned in further:
        read = {name: again(tuned, name) for name in tuned.sources}
        for number, parts in enumerate(runs):
            parts.append(replace(parts[0], **{name: of_texts[number] for name, of_texts in read.items()}))
    return [Captures.over_seeds(parts) if further else parts[0] for parts in runs]


def _place(context: Context, found: Found, captures: Captures, layer: int, *, chosen: bool) -> None:
    """Measure where the models lie: on the direction at every layer, and among the personas at one layer."""
    direction = found.contrast.direction
    projections = measure_projections(direction, captures, found.reference)
    table = projections.table
    context.folder.write_table("projections", table.assign(chosen=(table["layer"] == layer) & chosen))
    context.store("projections", projections)
    if found.other_traits:
        personas = {CONTEXT: direction, **found.other_traits}
        space = measure_persona_space(
            personas,
            captures,
            found.reference,
            layer=layer,
            n_random=context.config.random_directions,
            seed=context.config.seed,
        )
        context.folder.write_table("persona_space", space)
        context.store("persona_space", space)


def _agreement(cosines: CosineTable, layer: int) -> dict[str, Any]:
    """How far the directions from different methods agree at the chosen layer."""
    rows = cosines.table[cosines.table["layer"] == layer]
    by_pair = dict(zip(zip(rows["first"], rows["second"], strict=True), rows["cosine"], strict=True))
    return {
        "cosine_between_methods": by_pair.get((CONTEXT, ANSWERS)),
        "cosine_with_finetuning_shift": by_pair.get((CONTEXT, SHIFT)),
        "layer": layer,
        "verdict": cosines.verdict(CONTEXT, layer),
    }


def _work(sizes: Sizes) -> Work:
    development, reported, models = sizes.material.development, sizes.material.reported, sizes.n_models
    # Each further model is read together with before.
    readings = models + 2 * (models - 1) * (n_runs(sizes.config) - 1)
    work = sizes.work(development, texts=readings * len(development))
    return work + sizes.work(reported, answers=len(reported), judged=0, texts=readings * len(reported))


TRACK = Stage(
    "track",
    track,
    work=_work,
    settings=(*SAMPLING, "random_directions"),
    material=("reported",),
    reads=("after", "control", "training.runs"),
    derived=lambda config: {"one run": _why_one_run(config)},
    needs=("find", FURTHER.name),
)
