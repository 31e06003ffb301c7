"""The search for modules whose output is added to the residual stream: nudge one, and see what comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from persona_probe.errors import PersonaProbeError
from persona_probe.models.twin import own

_SINGLE, _HALF = 1e-3, 5e-2
"""Of a norm: how far from proportional rounding can be, in float32 and in half precision."""
_Silenced = Sequence[nn.Module]
Run = Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class StreamWriter:
    """A module whose output is added to the residual stream.

    Attributes:
        name: within its block (of what writes block 0's input: within the backbone).
        module: the innermost such module.
        scale: what the output is multiplied by on its way into the block's output; None: it differs between tokens (a
            gated expert).
        last: whether nothing else in the block reads what it writes.
    """

    name: str
    module: nn.Module
    scale: float | None
    last: bool


def search_all(
    run: Run, names: dict[str, nn.Module], nothing_left: Callable[[Tensor], bool]
) -> tuple[tuple[StreamWriter, ...], bool]:
    """The innermost writers that leave nothing when silenced, or else those first found, and False."""
    first: tuple[StreamWriter, ...] | None = None
    while True:
        found, rest = _search(run, names)
        if nothing_left(rest.double()):
            return found, True
        first = found if first is None else first
        if not found:
            return first, False
        # One of several modules that are summed within an outer one may be seen (Llama 4's shared expert) and the
        # others not: then the outer one is the writer.
        seen = {writer.module for writer in found}
        names = {name: module for name, module in names.items() if module not in seen}


def _search(run: Run, names: dict[str, nn.Module]) -> tuple[tuple[StreamWriter, ...], Tensor]:
    """Writers among ``names``, and what ``run`` gives without them."""
    name_of = {module: name for name, module in names.items()}
    found: list[StreamWriter] = []
    done: set[nn.Module] = set()
    while True:
        silent = [writer.module for writer in found]
        base, outputs = _recorded(run, name_of, silent)
        size = base.double().square().mean(dim=-1, keepdim=True).sqrt()
        new: list[StreamWriter] = []
        for module in [one for one in outputs if one not in done]:  # inner modules finish before outer ones
            if module in done:
                continue
            delta = (torch.randn_like(base, dtype=torch.float64) * size).to(base.dtype)
            scales = _scales(_nudged(run, module, delta, silent) - base.double(), delta, tolerance_for(base))
            if scales is None:
                continue
            mean = float(scales.mean())
            steady = bool(((scales - mean).abs() <= tolerance_for(base) * abs(mean)).all())
            new.append(StreamWriter(name_of[module], module, mean if steady else None, not found))
            # What comes after it (a dropout, the module around it) passes the same test, and is no other writer.
            _, without = _recorded(run, name_of, [*silent, module])
            done |= {module} | {one for one in without if one in outputs and _differ(outputs[one], without[one])}
        if not new:
            return tuple(found), base
        found += new


def _scales(moved: Tensor, delta: Tensor, tolerance: float) -> Float[Tensor, "... position"] | None:
    """``c`` of each position if ``moved`` is ``c * delta`` there, else None."""
    moved, delta = (rearrange(tensor, "... d_model -> (...) d_model") for tensor in (moved, delta.double()))
    scales = (moved * delta).sum(dim=-1) / (delta * delta).sum(dim=-1)
    off = (moved - scales[:, None] * delta).norm(dim=-1)
    fits = (off <= tolerance * scales.abs() * delta.norm(dim=-1)) & (scales.abs() > tolerance**2)
    return scales if bool(fits.all()) else None


def _recorded(
    run: Run, modules: dict[nn.Module, str], silent: _Silenced
) -> tuple[Tensor, dict[nn.Module, list[Tensor]]]:
    """What ``run`` gives with ``silent`` silenced, and outputs that could be written to the stream, as they come.

    One for each time that a module was called: a dropout may serve several.
    """
    outputs: dict[nn.Module, list[Tensor]] = {}

    def record(module: nn.Module, _args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor) and first.is_floating_point():
            outputs.setdefault(module, []).append(first.clone())

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(own(record)).remove)
        with _silenced(silent):
            base = run().clone()

    def fits(output: Tensor) -> bool:
        return output.shape[-1:] == base.shape[-1:] and output.numel() == base.numel()

    return base, {module: calls for module, calls in outputs.items() if all(map(fits, calls))}


def _nudged(run: Run, module: nn.Module, delta: Tensor, silent: _Silenced) -> Tensor:
    def nudge(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = first_tensor(output)
        return with_first_tensor(output, hidden + delta.reshape(hidden.shape).to(hidden.dtype))

    handle = module.register_forward_hook(own(nudge))
    try:
        with _silenced(silent):
            return run().double()
    finally:
        handle.remove()


@contextlib.contextmanager
def _silenced(modules: _Silenced) -> Iterator[None]:
    def silence(_module: nn.Module, _args: Any, output: Any) -> Any:
        return with_first_tensor(output, torch.zeros_like(first_tensor(output)))

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(own(silence)).remove)
        yield


def _differ(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return any(
        bool((one.double() - other.double()).norm() > tolerance_for(one) * one.double().norm())
        for one, other in zip(first, second, strict=True)
    )


def first_tensor(output: Any) -> Tensor:
    """A module's output, or the first of several."""
    first = output[0] if isinstance(output, tuple) else output
    if not isinstance(first, Tensor):
        raise PersonaProbeError(f"a module returned {type(first).__name__}; expected a tensor")
    return first


def with_first_tensor(output: Any, first: Tensor) -> Any:
    """``output`` with ``first`` as its first tensor."""
    return (first, *output[1:]) if isinstance(output, tuple) else first


def tolerance_for(like: Tensor) -> float:
    """How far rounding can go, of a norm."""
    return _SINGLE if torch.finfo(like.dtype).bits >= 32 else _HALF
