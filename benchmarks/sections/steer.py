"""What steering costs while answers are generated."""

from __future__ import annotations

from typing import Any

import numpy as np

import persona_probe as pp
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import in_turn, ratios, speeds, summary

DIALOGUES = 32
NEW_TOKENS = 32
ROWS = [
    Row("steer.vs_plain_one_layer", "time to generate, steered at one layer, over unsteered", "times", True),
    Row("steer.vs_plain_all_layers", "time to generate, steered at every layer, over unsteered", "times"),
]
HOW = f"""\
Greedy answers of {NEW_TOKENS} tokens to {DIALOGUES} questions, plain and with a direction added at one (the middle)
layer or at all, `scope="generation"`, strength 0: the work of steering is done, and the answers stay the same, so that
all variants generate equally many tokens (checked)."""


def measure(setting: Setting) -> dict[str, Any]:
    model = setting.model
    asked = [dialogue.without_answer() for dialogue in setting.dialogues[:DIALOGUES]]
    vectors = np.random.default_rng(0).normal(size=(model.n_layers, model.d_model))
    direction = pp.Direction.from_vectors(vectors, model)

    def plain() -> list[str | None]:
        answered = model.generate(asked, max_new_tokens=NEW_TOKENS, temperature=0.0)
        return [dialogue.answer for dialogue in answered]

    def steered(layers: int | str) -> list[str | None]:
        with pp.steer(model, direction, layers=layers, strength=0.0):
            return plain()

    variants = {
        "plain": plain,
        "one_layer": lambda: steered(model.n_layers // 2),
        "all_layers": lambda: steered("all"),
    }
    answers = {name: run() for name, run in variants.items()}
    if changed := [name for name in answers if answers[name] != answers["plain"]]:
        raise RuntimeError(f"{changed}: steering with strength 0 changed the answers, so times cannot be compared")
    timed = in_turn(variants, setting.rounds, setting.device)
    compared = {f"vs_plain_{name}": ratios(timed[name], timed["plain"]) for name in ("one_layer", "all_layers")}
    raw = {
        "ratios": {name: summary(values) for name, values in compared.items()},
        "dialogues": len(asked),
        "variants": speeds(timed, NEW_TOKENS * len(asked)),
    }
    return {"figures": {name: summary(values)["median"] for name, values in compared.items()}, "raw": raw}
