"""How long ``import persona_probe`` takes, and that it does not import torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import in_turn, summary

ROUNDS = 7
ROWS = [Row("import_seconds", "`import persona_probe`, beyond starting Python", "seconds", True)]
HOW = """\
The time of a fresh interpreter that imports the package minus that of one that does nothing, in turn; the median of
seven rounds. The run stops if torch was imported."""


def measure(setting: Setting) -> dict[str, Any]:  # noqa: ARG001  (every section takes it)
    if _python("import persona_probe, sys; print('torch' in sys.modules)") != "False":
        raise RuntimeError("import persona_probe imported torch")
    timed = in_turn(
        {"import": lambda: _python("import persona_probe"), "nothing": lambda: _python("pass")}, rounds=ROUNDS
    )
    beyond = [a - b for a, b in zip(timed["import"], timed["nothing"], strict=True)]
    raw = {name: summary(values) for name, values in timed.items()} | {"beyond": summary(beyond)}
    return {"figures": raw["beyond"]["median"], "raw": raw}


def _python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
