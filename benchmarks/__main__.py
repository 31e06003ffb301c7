"""``make bench``: measure on this machine and write ``benchmarks/results/cpu.json``.

Every figure is a ratio of medians taken in turn (ours, bare, ours, bare, ...), since machines are shared and noisy.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

import persona_probe as pp
from persona_probe.dialogue.rendering import encode
from persona_probe.worlds.persona_world.checkpoints import find_checkpoints
from persona_probe.worlds.persona_world.documents import rows

ROUNDS = 7
DIALOGUES = 512
BATCH = 64
TOKENS_PER_BATCH = 4096
RESULTS = Path(__file__).parent / "results" / "cpu.json"


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def bare_forward(model: pp.Model, dialogues: list[pp.Dialogue]) -> Callable[[], None]:
    """The backbone alone on the same dialogues, sorted by length and padded: the limit."""
    encoded = sorted((encode(model.tokenizer, d).input_ids for d in dialogues), key=len, reverse=True)
    batches, start = [], 0
    while start < len(encoded):
        size = max(1, TOKENS_PER_BATCH // len(encoded[start]))
        ids = [list(item) for item in encoded[start : start + size]]
        batches.append(model.tokenizer.pad({"input_ids": ids}, return_tensors="pt", padding_side="right"))
        start += size

    def run() -> None:
        with torch.inference_mode():
            for batch in batches:
                model.stream.backbone(**batch, use_cache=False)

    return run


def import_seconds() -> float:
    command = [sys.executable, "-c", "import persona_probe"]
    empty = [sys.executable, "-c", "pass"]
    ours = [seconds(lambda: subprocess.run(command, check=True)) for _ in range(ROUNDS)]
    none = [seconds(lambda: subprocess.run(empty, check=True)) for _ in range(ROUNDS)]
    return statistics.median(ours) - statistics.median(none)


def main() -> None:
    import random

    model = pp.load(find_checkpoints() / "chat", device="cpu")
    dialogues = rows(random.Random(0), ["medicine", "law", "travel"], DIALOGUES, "assistant")
    asked = [dialogue.without_answer() for dialogue in dialogues[:BATCH]]
    direction = pp.find_direction(
        pp.capture(model, dialogues[:64]), pp.capture(model, rows(random.Random(1), ["law"], 64, "villain"))
    )
    bare = bare_forward(model, dialogues)

    def plain() -> None:
        model.generate(asked, max_new_tokens=40)

    def steered() -> None:
        with pp.steer(model, direction, layers=2, strength=0.0):
            model.generate(asked, max_new_tokens=40)

    timed: dict[str, list[float]] = {"capture": [], "bare": [], "steered": [], "plain": []}
    for _ in range(ROUNDS + 1):
        timed["capture"].append(seconds(lambda: pp.capture(model, dialogues, tokens_per_batch=TOKENS_PER_BATCH)))
        timed["bare"].append(seconds(bare))
        timed["steered"].append(seconds(steered))
        timed["plain"].append(seconds(plain))
    medians = {name: statistics.median(values[1:]) for name, values in timed.items()}
    result = {
        "capture": {"vs_bare": round(medians["bare"] / medians["capture"], 3)},
        "steer": {"vs_plain_one_layer": round(medians["steered"] / medians["plain"], 3)},
        "import_seconds": round(import_seconds(), 3),
        "raw": {
            name: {"median": medians[name], "min": min(values[1:]), "max": max(values[1:]), "rounds": ROUNDS}
            for name, values in timed.items()
        },
        "model": "Persona World chat (2.4 M parameters, float32)",
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "persona-probe")},
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("capture", "steer", "import_seconds")}, indent=2))
    print(RESULTS)


main()
