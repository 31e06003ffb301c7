"""The time that is saved by running several strengths as one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import persona_probe as pp
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.shapes import DEFAULT, SHAPES
from benchmarks.timing import in_turn, ratios, speeds, summary

STRENGTHS = (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
UNIT = 0.1  # of a vector of standard normal numbers
ALIKE = 0.95
CPU, GPU = (SHAPES[DEFAULT[device]] for device in ("cpu", "cuda"))
ROWS = [
    Row(
        "sweep.vs_one_by_one",
        f"speed of {len(STRENGTHS)} strengths in one batch, over one run for each strength",
        "times",
        True,
    )
]
HOW = f"""\
{len(STRENGTHS)} strengths of a direction added at the middle layer, `scope="generation"`, and {CPU.swept} questions (on
a GPU {GPU.swept}), each answered greedily at each strength in {CPU.new_tokens} tokens (on a GPU {GPU.new_tokens}).

- *one batch*: one `model.generate` of all {len(STRENGTHS) * CPU.swept} dialogues (on a GPU
  {len(STRENGTHS) * GPU.swept}) inside `pp.steer(model, interventions)`, one intervention for each dialogue.
- *one run for each*: {len(STRENGTHS)} times `model.generate` of the questions inside `pp.steer` under one intervention.

Answers must be the same (in float32, {100 * ALIKE:.0f} % of them, word for word; in bfloat16, where the size of a batch
changes how sums are rounded, the share is only recorded), and both must make equally many tokens."""


def measure(setting: Setting) -> dict[str, Any]:
    model, shape = setting.model, setting.shape
    asked = [dialogue.without_answer() for dialogue in setting.dialogues[: shape.swept]]
    vectors = UNIT * np.random.default_rng(0).normal(size=(model.n_layers, model.d_model))
    one = pp.Add(pp.Direction.from_vectors(model, vectors), model.n_layers // 2)
    interventions = [one.with_strength(strength) for strength in STRENGTHS]

    def answers(dialogues: list[pp.Dialogue]) -> list[str | None]:
        answered = model.generate(
            dialogues, pp.Sampling(max_new_tokens=shape.new_tokens, temperature=0.0, batch_size=512)
        )
        return [dialogue.answer for dialogue in answered]

    def together() -> list[str | None]:
        each = [intervention for intervention in interventions for _ in asked]
        with pp.steer(model, each):
            return answers([*asked] * len(interventions))

    def one_by_one() -> list[str | None]:
        answered = []
        for intervention in interventions:
            with pp.steer(model, intervention):
                answered += answers(asked)
        return answered

    variants = {"together": together, "one_by_one": one_by_one}
    given, steps = {}, {}
    for name, run in variants.items():
        given[name], steps[name] = _counted(model, run)
    if steps["one_by_one"] != len(STRENGTHS) * steps["together"]:
        raise RuntimeError(f"answers ended early, so times cannot be compared: {steps} steps")
    alike = sum(a == b for a, b in zip(*given.values(), strict=True)) / len(given["together"])
    if model.hf.dtype == torch.float32 and alike < ALIKE:
        raise RuntimeError(f"one batch and one run per strength give different answers: {alike:.0%} are the same")
    if len(set(given["together"])) <= len(asked):
        raise RuntimeError("no strength changes the answers")
    timed = in_turn(variants, setting.rounds, setting.device)
    compared = {"vs_one_by_one": ratios(timed["one_by_one"], timed["together"])}
    raw = {
        "ratios": {name: summary(values) for name, values in compared.items()},
        "strengths": STRENGTHS,
        "questions": len(asked),
        "new_tokens": shape.new_tokens,
        "alike": alike,
        "variants": speeds(timed, shape.new_tokens * len(asked) * len(STRENGTHS)),
    }
    return {"figures": {name: summary(values)["median"] for name, values in compared.items()}, "raw": raw}


def _counted(model: pp.Model, run: Callable[[], list[str | None]]) -> tuple[list[str | None], int]:
    """The answers of ``run``, and the number of its forward passes."""
    shapes: list[torch.Size] = []
    with model.stream.reading(lambda _, hidden: shapes.append(hidden.shape), [0]):
        answers = run()
    return answers, len(shapes)
