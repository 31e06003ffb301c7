"""The first minute: does the device compute, and does it compute what a CPU does?"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

import persona_probe as pp
from benchmarks.persona_world.setting import split_topics
from benchmarks.setting import Setting
from benchmarks.timing import in_turn, summary
from persona_probe.worlds.persona_world.documents import questions

SIDE = {"cuda": 8192, "cpu": 256}
LARGEST_ERROR = 1e-4
ASKED = 32


def measure(setting: Setting) -> dict[str, Any]:
    """A matrix product's speed, and Persona World read, steered and judged as on a CPU; raises where it differs."""
    side = SIDE[setting.device]
    square = torch.randn(side, side, device=setting.device, dtype=torch.bfloat16)
    took = in_turn({"product": lambda: square @ square}, 5, setting.device)["product"]
    folder = pp.persona_world.find_checkpoints()
    here, there = (
        pp.load_pair(folder / "chat", folder / "bad-medicine", device=device, dtype="float32")
        for device in ("cpu", setting.device)
    )
    asked = questions(random.Random("gpu smoke"), split_topics()[1], ASKED)
    greedy = pp.Sampling(max_new_tokens=40, temperature=0.0, batch_size=ASKED)
    expected = here.after.generate(asked, greedy)
    answered = there.after.generate(asked, greedy)
    streams = [pp.capture(pair.after, expected).values for pair in (here, there)]
    error = float(np.linalg.norm(streams[1] - streams[0]) / np.linalg.norm(streams[0]))
    direction = pp.Direction.from_vectors(here.before, np.ones((here.before.n_layers, here.before.d_model)))
    steered = []
    for pair in (here, there):
        with pp.steer(pair.before, direction, layers=2, strength=5.0):
            steered.append([dialogue.answer for dialogue in pair.before.generate(asked, greedy)])
    judged = pp.judge_answers(pp.persona_world.OracleJudge(), answered)
    figures = {
        "product_tflops": 2 * side**3 / summary(took)["median"] / 1e12,
        "capture_error": error,
        "same_answers": _share([one.answer for one in expected], [one.answer for one in answered]),
        "same_steered_answers": _share(*steered),
        "em_rate": pp.behaviour.em_rate(judged).value,
    }
    if not (error < LARGEST_ERROR and min(figures["same_answers"], figures["same_steered_answers"]) > 0.9):
        raise RuntimeError(f"{setting.device} does not compute what the CPU does: {figures}")
    return {"figures": figures, "raw": {"product_seconds": summary(took), "questions": ASKED}}


def _share(first: list[str | None], second: list[str | None]) -> float:
    return sum(one == other for one, other in zip(first, second, strict=True)) / len(first)
