"""Timing of variants in turn, in an order that rotates every round, and their comparison within rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch


def seconds(run: Callable[[], object], device: str = "cpu") -> float:
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def in_turn(variants: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """The seconds of each variant, one number per round. On a GPU there is one round before, which does not count."""
    names = list(variants)
    timed: dict[str, list[float]] = {name: [] for name in names}
    first = -1 if device == "cuda" else 0
    for turn in range(first, rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            took = seconds(variants[name], device)
            if turn >= 0:
                timed[name].append(took)
    return timed


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratio in each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": len(values)}


def speeds(timed: Mapping[str, Sequence[float]], tokens: int) -> dict[str, dict[str, float]]:
    """The seconds of each variant, and its tokens per second at the median."""
    return {
        name: {**summary(values), "tokens_per_second": tokens / statistics.median(values)}
        for name, values in timed.items()
    }
