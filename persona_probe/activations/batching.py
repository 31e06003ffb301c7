"""Which dialogues run together: sorted by length, as many as the token budget allows, fewer if memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence

import torch
from accelerate.utils.memory import should_reduce_batch_size

from persona_probe.errors import PersonaProbeError

_BUDGET = {"cpu": 2_048}
_BUDGET_ELSEWHERE = 16_384


def tokens_per_batch_for(device: torch.device) -> int:
    """The default number of padded tokens per batch: on a CPU small batches run as fast and stay in its caches."""
    return _BUDGET.get(device.type, _BUDGET_ELSEWHERE)


def batches(lengths: Sequence[int], tokens_per_batch: int, border: int | None = None) -> Iterator[list[int]]:
    """The row numbers of each batch, longest rows first, as many as fit into ``tokens_per_batch`` with padding.

    Args:
        lengths: number of tokens of each row.
        tokens_per_batch: padded tokens per batch; a row longer than that runs alone.
        border: rows longer than this never share a batch with shorter ones (`longest_alike`).
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    beyond = 0 if border is None else sum(length > border for length in lengths)
    start = 0
    while start < len(order):
        size = max(1, tokens_per_batch // max(1, lengths[order[start]]))
        stop = min(start + size, beyond) if start < beyond else start + size
        yield order[start:stop]
        start = stop


def halving(rows: list[int], run: Callable[[list[int]], None], name: Callable[[int], str]) -> None:
    """Call ``run(rows)``, and where the GPU runs out of memory call it on each half, and so on.

    Args:
        rows: a batch.
        run: runs a batch; must leave nothing behind when it raises.
        name: gives the name of a row for error messages.

    Raises:
        PersonaProbeError: if one row alone does not fit, naming it.
    """
    waiting = [rows]
    while waiting:
        part = waiting.pop(0)
        try:
            run(part)
            continue
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)):
                raise
            if len(part) == 1:
                raise PersonaProbeError(
                    f"dialogue {name(part[0])} alone does not fit into the GPU's memory together with the model; "
                    "shorten it, capture fewer layers, or load the model with quantize= or device_map='auto'"
                ) from error
        # Outside of the handler, so that the traceback no longer references the tensors that did not fit.
        gc.collect()
        torch.cuda.empty_cache()
        middle = len(part) // 2
        waiting[:0] = [part[:middle], part[middle:]]
