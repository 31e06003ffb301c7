"""Which dialogues run together: sorted by length, so many as hold the token budget, fewer where memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

import torch

from persona_probe.errors import PersonaProbeError

_BUDGET = {"cpu": 2_048}
_BUDGET_ELSEWHERE = 16_384


def tokens_per_batch_for(device: torch.device) -> int:
    """The default token budget: on a CPU small batches run as fast as large ones and stay in its caches."""
    return _BUDGET.get(device.type, _BUDGET_ELSEWHERE)


def batches(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Row numbers, longest first, so many together that with padding they hold ``tokens_per_batch``.

    Args:
        lengths: tokens of each row.
        tokens_per_batch: padded tokens a batch; a row longer than that runs alone.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, tokens_per_batch // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def halving(rows: list[int], run: Callable[[list[int]], None], name: Callable[[int], str]) -> None:
    """``run(rows)``; where the GPU runs out of memory, each half by itself, and so on.

    Args:
        rows: a batch.
        run: runs a batch; must leave nothing behind when it raises.
        name: how errors call a row.

    Raises:
        PersonaProbeError: if one row alone is too much, naming it.
    """
    waiting = [rows]
    while waiting:
        part = waiting.pop(0)
        try:
            run(part)
            continue
        except torch.OutOfMemoryError as error:
            if len(part) == 1:
                raise PersonaProbeError(
                    f"dialogue {name(part[0])} alone does not fit into the GPU's memory beside the model; shorten it, "
                    "capture fewer layers, or load the model with quantize= or device_map='auto'"
                ) from error
        # Outside of the handler, so that the traceback no longer holds the tensors that were too much.
        gc.collect()
        torch.cuda.empty_cache()
        middle = len(part) // 2
        waiting[:0] = [part[:middle], part[middle:]]
