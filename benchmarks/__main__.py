"""``make bench``: measure on this machine, write ``benchmarks/results/``, and the tables in the README and the docs.

Every figure is a ratio of times that were measured in turn in one run, because machines are shared and noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from benchmarks.sections import SECTIONS
from benchmarks.setting import Setting
from benchmarks.shapes import DEFAULT, SHAPES
from benchmarks.table import RESULTS, write_tables


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", choices=sorted(DEFAULT), default="cpu")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="default: small on a CPU, qwen2.5-7b on a GPU")
    parser.add_argument("--rounds", type=int, help="number of rounds; default: that of the shape")
    parser.add_argument(
        "--out", type=Path, help="write here instead of into benchmarks/results/, and do not change the tables"
    )
    parser.add_argument("--only", help=f"sections, separated by commas (default all: {','.join(SECTIONS)})")
    given = parser.parse_args()
    shape = given.shape or DEFAULT[given.device]
    names = given.only.split(",") if given.only else list(SECTIONS)
    if unknown := [name for name in names if name not in SECTIONS]:
        parser.error(f"no section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    if given.out is None and shape == "tiny":
        parser.error("results of the tiny shape are not meaningful: give --out")
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds must be at least 1")

    out = given.out or RESULTS / f"{given.device}.json"
    with tempfile.TemporaryDirectory(prefix="persona-probe-bench-") as root:
        setting = Setting(root, given.device, shape, given.rounds or SHAPES[shape].rounds)
        for name in names:
            started = time.perf_counter()
            measured = SECTIONS[name].measure(setting)
            merge(out, name, measured, setting.about())
            print(f"{name}: {json.dumps(measured['figures'])} ({time.perf_counter() - started:.0f} s)", flush=True)
    if given.out is None:
        write_tables()
    print(out)


def merge(out: Path, name: str, measured: dict[str, Any], about: dict[str, Any]) -> None:
    """Put a section into the file; other sections stay as they are, with what they were measured on."""
    result = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    result |= {name: measured["figures"], **about}
    result["raw"] = result.get("raw", {}) | {name: {**measured["raw"], "about": about}}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
