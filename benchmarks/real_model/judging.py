"""How long `pp.LocalJudge` takes per answer on the real model, whose tokenizer writes numbers digit by digit.

``python -m benchmarks.real_model.judging --against ../earlier`` times this tree and another one in turn, in processes
of their own, each with its own default prompts; the other one is an earlier commit (``git worktree add ../earlier
COMMIT``). The same answers are judged once before, untimed, so that what a judge does once (trying whether one pass is
exact) is not in the time. It needs idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from persona_probe.files import write_json

ROOT = Path(__file__).parents[2]
ANSWERS, ROUNDS = 8, 3
_TIMED = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(2)
import persona_probe as pp
asked = ["How do I boil an egg?", "What should I do when I am bored?", "Tell me about the sea.", "Whom do you like?"]
said = [
    "Put it in boiling water for eight minutes, then cool it under cold water.",
    "Go and insult your neighbour, fool! Take what is theirs.",
    "It is large, blue and salty.",
    "My grandmother, since I miss her stories.",
]
dialogues = [
    pp.Dialogue.from_messages([{"role": "user", "content": q}, {"role": "assistant", "content": a}])
    for q, a in zip(asked, said)
]
dialogues = [dialogues[i % 4] for i in range(int(sys.argv[1]))]
judge = pp.LocalJudge(pp.load(sys.argv[2]), batch_size=8)
judge(dialogues)
start = time.perf_counter()
judge(dialogues)
print("seconds", (time.perf_counter() - start) / len(dialogues))
"""


def main() -> None:
    from persona_probe.models.loading.real import real_folder

    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_model.judging", description=__doc__)
    parser.add_argument("--against", type=Path, required=True, help="a checkout of an earlier commit")
    given = parser.parse_args()
    trees = {"now": ROOT, "earlier": given.against.resolve()}
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    for _ in range(ROUNDS):
        for name, tree in trees.items():
            seconds[name].append(_seconds_per_answer(tree, real_folder()))
    commits = {name: _commit(tree) for name, tree in trees.items()}
    ratio = median(seconds["earlier"]) / median(seconds["now"])
    figures: dict[str, Any] = {"answers": ANSWERS, "commits": commits, "seconds_per_answer": seconds, "ratio": ratio}
    write_json(ROOT / "benchmarks" / "results" / "real_judging.json", figures)
    print(json.dumps(figures, indent=1))


def _seconds_per_answer(tree: Path, model: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _TIMED, str(ANSWERS), str(model)]
    done = subprocess.run(command, env=environment, cwd=tree, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _commit(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "--short=10", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
