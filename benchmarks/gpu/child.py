"""Some parts in one process, which makes the large model once: ``python -m benchmarks.gpu.child``."""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks.gpu.part import PARTS, NotHere, left_out
from benchmarks.gpu.record import Record


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--shape", required=True)
    parser.add_argument("--deadline", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("parts", nargs="+")
    given = parser.parse_args()

    import torch

    from benchmarks.setting import Setting
    from benchmarks.shapes import SHAPES

    record = Record(given.record)
    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device; try the whole script with make gpu DEVICE=cpu")
    with tempfile.TemporaryDirectory(prefix="persona-probe-gpu-") as root:
        setting = Setting(root, given.device, given.shape, SHAPES[given.shape].rounds, fresh_processes=False)
        record.about(**setting.about(), cuda=torch.version.cuda)
        for part in (part for part in PARTS if part.name in given.parts):
            if reason := left_out(part, given.deadline - time.time()):
                record.part(part.name, "skipped", reason=reason)
                continue
            started = time.perf_counter()
            record.part(part.name, "running", estimate=part.seconds)
            try:
                measured = importlib.import_module(part.module or "").measure(setting)
            except NotHere as absent:
                record.part(part.name, "skipped", reason=str(absent))
            except Exception as error:  # noqa: BLE001  (what comes after must still run, and the file says what failed)
                text = traceback.format_exc(limit=-6)
                record.part(part.name, "failed", reason=f"{type(error).__name__}: {error}", traceback=text)
            else:
                took = time.perf_counter() - started
                record.part(part.name, "done", seconds=took, estimate=part.seconds, **measured)
            if given.device == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
