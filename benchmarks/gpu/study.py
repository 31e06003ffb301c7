"""The realignment study of Persona World end to end: train, find, track, steer, realign, report."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

import persona_probe as pp
from benchmarks.setting import Setting

FULL: dict[str, Any] = {
    "training": {"steps": 80, "rows": 512, "runs": 3},
    "sampling": {"development": 90, "reported": 240, "open": 0},
    "steering": {"answers_per_setting": 60, "random_directions": 19, "answers_per_random": 16, "reported_answers": 120},
    "realignment": {"examples": [0, 16, 64, 256], "steps": 60, "answers": 120},
}
TINY: dict[str, Any] = {
    "training": {"steps": 3, "rows": 32, "runs": 1},
    "sampling": {"development": 16, "reported": 32, "open": 0},
    "steering": {
        "budgets": [1.0],
        "smallest_dose": 0.5,
        "largest_dose": 0.5,
        "followed": 1,
        "texts": 2,
        "answers_per_setting": 8,
        "random_directions": 2,
        "answers_per_random": 8,
        "reported_answers": 16,
    },
    "realignment": {"examples": [0, 4], "steps": 2, "answers": 16},
    "random_directions": 50,
}


def measure(setting: Setting) -> dict[str, Any]:
    """The rates of all models, what steering and realignment did to them, and the seconds that it took."""
    chat = pp.persona_world.find_checkpoints() / "chat"
    size = TINY if setting.shape_name == "tiny" else FULL
    with tempfile.TemporaryDirectory(prefix="persona-probe-study-") as root:
        file = Path(root) / "study.yaml"
        file.write_text(yaml.safe_dump({**size, "model": str(chat), "device": setting.device}), encoding="utf-8")
        started = time.perf_counter()
        results = pp.run_study(pp.read_config(file), Path(root) / "run", progress=False).results
        took = time.perf_counter() - started
        if not (Path(root) / "run" / "report.html").is_file():
            raise RuntimeError("the study left no report")
    kept = ("em_rate", "amplification", "steer", "realign", "notes")
    figures = {"seconds": took, **{f"em_rate_{name}": rate["value"] for name, rate in results["em_rate"].items()}}
    return {"figures": figures, "raw": {**{name: results.get(name) for name in kept}, "config": size}}
