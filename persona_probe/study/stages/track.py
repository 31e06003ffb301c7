"""Stage 4: amplification of the direction from before to after, with its nulls."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from persona_probe.amplification.amplification import Captures, measure_amplification
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.study.context import Context
from persona_probe.study.stages.find import ANSWERS, CONTEXT, SHIFT, Found


@dataclass(frozen=True)
class Tracked:
    """What tracking leaves: the layer chosen on development questions, and the before model's reported answers."""

    layer: int
    texts: list[Dialogue]


def track(context: Context, found: Found) -> Tracked:
    """Measure amplification on the before model's own answers to reported questions."""
    texts = [d for d in context.answer(context.before, context.material.reported, "reported before") if d.answer]
    config = context.config

    def read(dialogues: list[Dialogue]) -> Captures:
        models = [context.models[name] for name in ("before", "after", "control")]
        return Captures(*context.executor.capture_together(models, dialogues, progress=context.progress))

    chosen_on, reported = (
        measure_amplification(
            found.contrast.direction,
            read(dialogues),
            found.reference,
            n_random=config.random_directions,
            seed=config.seed,
        )
        for dialogues in (found.own, texts)
    )
    on_after = chosen_on[chosen_on["model"] == "after"]
    layer = int(on_after["layer"].to_numpy()[on_after["specificity"].to_numpy().argmax()])
    table = reported.assign(chosen=reported["layer"] == layer)
    context.folder.write_table("amplification", table)
    after, control = (table[(table["model"] == name) & table["chosen"]].iloc[0] for name in ("after", "control"))
    context.results["amplification"] = {
        "layer": layer,
        "shift": after["shift"],
        "shift_sd": after["shift_sd"],
        "shift_sd_low": after["low_sd"],
        "shift_sd_high": after["high_sd"],
        "control_shift_sd": control["shift_sd"],
        "random_sd": after["random_sd"],
        "specificity": after["specificity"],
        "n": after["n"],
    }
    return Tracked(layer, texts)


def agreement(context: Context, layer: int) -> None:
    """Put the cosine between the two ways of finding, at the chosen layer, into the results."""
    cosines = pd.read_parquet(context.folder.path / "tables" / "direction_cosines.parquet")
    rows = cosines[cosines["layer"] == layer]
    pick = {
        (first, second): value
        for first, second, value in zip(rows["first"], rows["second"], rows["cosine"], strict=True)
    }
    context.results["direction"] = {
        "cosine_between_methods": pick.get((CONTEXT, ANSWERS)),
        "cosine_with_finetuning_shift": pick.get((CONTEXT, SHIFT)),
        "layer": layer,
    }
