"""The time and memory for ten times as many dialogues, when only moments are stored."""

from __future__ import annotations

from typing import Any

import persona_probe as pp
from benchmarks import memory
from benchmarks.child import in_child
from benchmarks.prepared import tokens_of
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import ratios, seconds, summary

ROWS = [
    Row("growth.time_ratio_10x", "time for ten times as many tokens, moments only (10 is linear)", "times"),
    Row("growth.memory_ratio_10x", "peak memory for ten times as many dialogues, moments only", "times", True),
]
HOW = """\
`pp.capture(..., reduce="moments")` of a tenth of 510 dialogues and of all, each in a fresh process after the model is
loaded and a first small capture is done; at most two rounds. Time is per token, times ten; memory is the peak of the
whole process (weights included), and the JSON also has the bytes beyond the loaded model."""
MOST_ROUNDS = 2


def measure(setting: Setting) -> dict[str, Any]:
    if not memory.available(setting.device):
        figures = {"time_ratio_10x": None, "memory_ratio_10x": None}
        return {"figures": figures, "raw": {"skipped": dict.fromkeys(figures, memory.UNAVAILABLE)}}
    few = len(setting.dialogues) // 10
    rounds = min(setting.rounds, MOST_ROUNDS)
    runs = {n: [in_child(moments, setting, n) for _ in range(rounds)] for n in (few, 10 * few)}
    per_token = {n: [run["seconds"] / run["tokens"] for run in of_n] for n, of_n in runs.items()}
    compared = {
        "time_ratio_10x": [10 * ratio for ratio in ratios(per_token[10 * few], per_token[few])],
        "memory_ratio_10x": ratios([run["peak"] for run in runs[10 * few]], [run["peak"] for run in runs[few]]),
    }
    raw = {
        "ratios": {name: summary(values) for name, values in compared.items()},
        "runs": {f"{n}_dialogues": of_n for n, of_n in runs.items()},
    }
    return {"figures": {name: summary(values)["median"] for name, values in compared.items()}, "raw": raw}


def moments(setting: Setting, n: int) -> dict[str, float]:
    """The seconds, tokens and memory of ``n`` dialogues; called in a separate process."""
    model, dialogues = setting.model, setting.dialogues[:n]
    took: list[float] = []

    def run() -> None:
        took.append(seconds(lambda: pp.capture(model, dialogues, reduce="moments"), setting.device))

    pp.capture(model, setting.dialogues[:2], reduce="moments")
    held = memory.peak_of(run, setting.device)
    return {"seconds": took[0], "tokens": sum(tokens_of(model, dialogues)), **held}
