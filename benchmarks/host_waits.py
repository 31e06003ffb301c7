"""How often the host waits for a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch


def host_waits(run: Callable[[], object]) -> int:
    """The number of synchronizing operations in ``run`` that torch's debug mode reports."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in seen)
