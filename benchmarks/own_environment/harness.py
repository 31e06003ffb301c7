"""One library's steered `generate` compared with the plain one: times in turn, and whether it steers as it was asked.

It runs where persona-probe is not installed: it needs torch and transformers only.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.shapes import SHAPES, Shape
from benchmarks.timing import in_turn, ratios, speeds, summary

RESULTS = Path(__file__).parents[1] / "results" / "own_environment.json"
STRENGTH = 0.1  # of a vector of standard normal numbers
SHORTEST, LONGEST = 20, 160
PADDING = 1  # any token: it is masked
CHECKED = 8  # rows, and new tokens: without a cache, each token needs a forward pass of the whole batch

Steering = Callable[..., contextlib.AbstractContextManager[None]]
"""``steering(model, vectors, **which)``: a context in which ``model`` adds ``vectors[layer]``."""


@dataclass(frozen=True)
class Batch:
    """Attributes: ``ids`` and ``mask``, (row, position), padded on the left; the number of tokens of each answer."""

    ids: Tensor
    mask: Tensor
    new_tokens: int

    def answers(self, model: Any, *, use_cache: bool = True) -> Tensor:
        ids: Tensor = model.generate(
            input_ids=self.ids,
            attention_mask=self.mask,
            min_new_tokens=self.new_tokens,
            max_new_tokens=self.new_tokens,
            do_sample=False,
            pad_token_id=PADDING,
            use_cache=use_cache,
        )
        return ids[:, self.ids.shape[1] :]

    def rows(self) -> list[Batch]:
        """Each prompt alone, without padding."""
        prompts = [ids[mask.bool()][None] for ids, mask in zip(self.ids, self.mask, strict=True)]
        return [Batch(ids, torch.ones_like(ids), self.new_tokens) for ids in prompts]


def main(library: str, steering: Steering, from_answer: Callable[[int], dict[str, Any]] | None) -> None:
    """Measure ``library`` and put the figures into the results.

    Args:
        library: the name of the distribution.
        steering: the context in which it steers.
        from_answer: makes the arguments of ``steering`` to steer from a token on; None if the library cannot do that.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=[name for name, shape in SHAPES.items() if shape.on_disk], default="small")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    measured = measure(library, steering, from_answer, SHAPES[given.shape], given.rounds)
    results = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(results | {library: measured}, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(measured, indent=2))


def measure(
    library: str,
    steering: Steering,
    from_answer: Callable[[int], dict[str, Any]] | None,
    shape: Shape,
    rounds: int,
) -> dict[str, Any]:
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(shape.config()).eval()
    steered = copy.deepcopy(plain)  # some libraries change the model
    vectors = STRENGTH * torch.randn(shape.layers, shape.d_model)
    layer, batch = shape.layers // 2, _batch(shape, shape.batch, shape.new_tokens)
    one, every = {layer: vectors[layer]}, dict(enumerate(vectors))

    def answers(chosen: dict[int, Tensor]) -> Tensor:
        with steering(steered, chosen):
            return batch.answers(steered)

    few = _batch(shape, min(CHECKED, shape.batch), min(CHECKED, shape.new_tokens))
    checks = _checks(plain, steered, steering, one, few, from_answer)
    variants = {
        "plain": lambda: batch.answers(plain),
        "one_layer": lambda: answers(one),
        "all_layers": lambda: answers(every),
    }
    timed = in_turn(variants, rounds)
    return {
        "figures": {
            f"vs_plain_{name}": summary(ratios(timed[name], timed["plain"])) for name in ("one_layer", "all_layers")
        },
        "checks": checks,
        "variants": speeds(timed, batch.ids.shape[0] * batch.new_tokens),
        "model": shape.words(),
        "versions": {name: importlib.metadata.version(name) for name in (library, "torch", "transformers", "numpy")},
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _checks(
    plain: Any,
    steered: Any,
    steering: Steering,
    chosen: dict[int, Tensor],
    batch: Batch,
    from_answer: Callable[[int], dict[str, Any]] | None,
) -> dict[str, Any]:
    """Shares of equal new tokens, which should be 1; ``reference`` is a bare hook, with which only rounding differs."""
    with steering(steered, chosen):
        cached = batch.answers(steered)
        checks: dict[str, Any] = {"cached_and_uncached": _alike(cached, batch.answers(steered, use_cache=False))}
        checks["batched_and_single"] = _alike(cached, _single(batch, steered))
    with _bare_hook(plain, chosen):
        expected = batch.answers(plain)
        checks["reference"] = {
            "cached_and_uncached": _alike(expected, batch.answers(plain, use_cache=False)),
            "batched_and_single": _alike(expected, _single(batch, plain)),
        }
    unsteered = batch.answers(plain)
    checks["like_a_bare_hook"] = _alike(cached, expected)
    checks["like_unsteered"] = _alike(expected, unsteered)
    checks["closed_afterwards"] = _alike(batch.answers(steered), unsteered)
    checks["from_answer"] = None
    if from_answer is not None:
        checks["from_answer"] = _from_answer(plain, steered, steering, chosen, batch, from_answer)
    return checks


def _from_answer(
    plain: Any,
    steered: Any,
    steering: Steering,
    chosen: dict[int, Tensor],
    batch: Batch,
    asked: Callable[[int], dict[str, Any]],
) -> dict[str, Any]:
    """Whether steering from the last prompt token on is the same with a KV cache, and as it was asked."""
    first = batch.ids.shape[1] - 1
    with steering(steered, chosen, **asked(first)):
        cached, uncached = batch.answers(steered), batch.answers(steered, use_cache=False)
    with _bare_hook(plain, chosen, first):
        expected = batch.answers(plain, use_cache=False)
    return {
        "cached_and_uncached": _alike(cached, uncached),
        "cached_like_a_bare_hook": _alike(cached, expected),
        "uncached_like_a_bare_hook": _alike(uncached, expected),
        "cached_like_unsteered": _alike(cached, batch.answers(plain)),
    }


@contextlib.contextmanager
def _bare_hook(model: Any, chosen: dict[int, Tensor], first: int = 0) -> Iterator[None]:
    """Add the vectors by hand; from position ``first`` on, which is only right without a cache."""

    def hook_for(vector: Tensor) -> Callable[..., Any]:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            moved = torch.cat([hidden[:, :first], hidden[:, first:] + vector], dim=1)
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        return hook

    handles = [model.model.layers[layer].register_forward_hook(hook_for(vector)) for layer, vector in chosen.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _batch(shape: Shape, rows: int, new_tokens: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (rows,), generator=generator)
    ids = torch.randint(PADDING + 1, shape.vocabulary, (rows, int(lengths.max())), generator=generator)
    mask = (torch.arange(ids.shape[1])[None] >= ids.shape[1] - lengths[:, None]).long()
    return Batch(torch.where(mask.bool(), ids, PADDING), mask, new_tokens)


def _single(batch: Batch, model: Any) -> Tensor:
    return torch.cat([row.answers(model) for row in batch.rows()])


def _alike(first: Tensor, second: Tensor) -> float:
    return float((first == second).float().mean())
