"""The amplification of a direction in the models behind answer files, on the before model's own answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from persona_probe.activations.capturing import capture
from persona_probe.amplification.amplification import measure_amplification
from persona_probe.amplification.amplification_result import choose_layer
from persona_probe.amplification.recipes.contrast_of_context import contrast_of_context
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.models.pair import load_pair
from persona_probe.runs.config_file import template_settings
from persona_probe.study.files_verdict_result import FilesVerdict

MOST = 240
"""Answers that are read, at most; every question gets its turn."""


def with_amplification(
    verdict: FilesVerdict, weights: Mapping[str, Any], direction: Direction | str | Path | None, *, progress: bool
) -> FilesVerdict:
    """The verdict with the amplification that was measured in the models.

    Args:
        verdict: the verdict on the files.
        weights: for ``before``, ``after`` and perhaps ``control``: a path, Hub id or loaded model.
        direction: a direction or its path; None: the contrast of context, found on the development questions.
        progress: show bars.

    Raises:
        PersonaProbeError: if before answered fewer than two questions in the files, or as `load_pair`, `capture` and
            `measure_amplification`.
    """
    check_types(direction=(direction, Direction, PATH, None))
    found = Direction.load(direction) if isinstance(direction, str | Path) else direction
    development, reported = _halves(verdict)
    pair = load_pair(weights["before"], weights["after"], weights.get("control"))
    poles = None
    if found is None:
        prompts = template_settings("own-data")["texts"]
        contrast = contrast_of_context(
            pair.before, development, prompts["trait_prompts"], prompts["default_prompts"], progress=progress
        )
        found, poles = contrast.direction, (contrast.trait, contrast.default)
    layers = list(found.layers)
    chosen_on, captures = (capture(pair, texts, layers=layers, progress=progress) for texts in (development, reported))
    first, last = (
        measure_amplification(found, read, chosen_on.before, shuffled_source=poles) for read in (chosen_on, captures)
    )
    what = "a direction that was given" if poles is None else "the contrast of context under our own prompts"
    names = ", ".join(f"{role} {model.name!r}" for role, model in pair.models.items())
    remark = (
        f"Amplification along {what}, in {names}: on {len(reported)} answers of before to one half of the questions, "
        f"at a layer chosen on {len(development)} answers to the other half"
    )
    layer = None if last.no_layer() is not None or first.no_layer() is not None else choose_layer(first)
    return replace(verdict, amplification=last, layer=layer, remarks=(*verdict.remarks, remark))


def _halves(verdict: FilesVerdict) -> tuple[list[Dialogue], list[Dialogue]]:
    """Before's own answers to one half of the questions, and to the other."""
    table = verdict.answers.table
    if verdict.roles.before is None:
        raise PersonaProbeError(
            "verdict: amplification is measured on the before model's own answers; say which model of the files is "
            f"before: {', '.join(map(repr, table['model'].unique()))}"
        )
    rows = table[(table["model"] == verdict.roles.before) & table["answer"].notna()]
    questions = list(rows["question"].unique())
    if len(questions) < 2:
        raise PersonaProbeError(
            f"verdict: {verdict.roles.before!r} answered {len(questions)} questions; amplification needs two or more, "
            "one half to choose a layer and the other to report"
        )
    each = max(1, MOST // len(questions))
    kept = rows.groupby("question", sort=False).head(each)
    return _dialogues(verdict, kept, questions[::2]), _dialogues(verdict, kept, questions[1::2])


def _dialogues(verdict: FilesVerdict, rows: Any, questions: Sequence[Any]) -> list[Dialogue]:
    part = rows[rows["question"].isin(list(questions))].head(MOST // 2).assign(seed=None)
    return replace(verdict.answers, table=part).dialogues()
