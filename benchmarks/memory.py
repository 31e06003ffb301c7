"""How much memory this process uses, or uses on the GPU, now and at most."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import torch

UNAVAILABLE = "peak memory on a CPU is read from Linux's /proc, which is not there"


def available(device: str) -> bool:
    return device == "cuda" or Path("/proc/self/clear_refs").exists()


def held(device: str) -> int:
    gc.collect()
    return torch.cuda.memory_allocated() if device == "cuda" else _status("VmRSS")


def peak_of(run: Callable[[], object], device: str) -> dict[str, int]:
    """Bytes before ``run`` and the peak during it: resident memory, or memory that torch allocated on the GPU."""
    before = held(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        run()
        peak = torch.cuda.max_memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets VmHWM back to VmRSS
        run()
        peak = _status("VmHWM")
    return {"before": before, "peak": peak, "extra": peak - before}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])
