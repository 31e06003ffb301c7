"""How often the host waits for a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch


def host_waits(run: Callable[[], object]) -> int:
    """The synchronizing operations in ``run``, as torch's own debug mode reports them."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in seen)
