"""The search for modules whose output is added to the residual stream: change one, and see what comes out."""

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
from persona_probe.models.twin import mark_as_ours

_SINGLE, _HALF = 1e-3, 5e-2
"""How far rounding may be from proportional, relative to a norm, in float32 and in half precision."""
_Silenced = Sequence[nn.Module]
Run = Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class StreamWriter:
    """A module whose output is added to the residual stream.

    Attributes:
        name: its name within its block (within the backbone, if it writes block 0's input).
        module: the innermost such module.
        scale: the factor of its output in the block's output; None if it differs between tokens (a gated expert).
        last: whether nothing else in the block reads its output.
    """

    name: str
    module: nn.Module
    scale: float | None
    last: bool


def search_all(
    run: Run, names: dict[str, nn.Module], nothing_left: Callable[[Tensor], bool]
) -> tuple[tuple[StreamWriter, ...], bool]:
    """The innermost writers and True if nothing is left when they are silenced; else the first ones found and False."""
    first: tuple[StreamWriter, ...] | None = None
    while True:
        writers, rest = _search(run, names)
        if nothing_left(rest.double()):
            return writers, True
        first = writers if first is None else first
        if not writers:
            return first, False
        # Of several modules that are summed within an outer one, the search may see one (Llama 4's shared expert) and
        # not the others: then the outer one is the writer.
        seen = {writer.module for writer in writers}
        names = {name: module for name, module in names.items() if module not in seen}


def _search(run: Run, names: dict[str, nn.Module]) -> tuple[tuple[StreamWriter, ...], Tensor]:
    """The writers among ``names``, and the output of ``run`` when they are silenced."""
    name_of = {module: name for name, module in names.items()}
    writers: list[StreamWriter] = []
    done: set[nn.Module] = set()
    while True:
        silent = [writer.module for writer in writers]
        base, outputs = _recorded(run, name_of, silent)
        size = base.double().square().mean(dim=-1, keepdim=True).sqrt()
        new: list[StreamWriter] = []
        for module in [candidate for candidate in outputs if candidate not in done]:  # inner modules come first
            if module in done:
                continue
            delta = (torch.randn_like(base, dtype=torch.float64) * size).to(base.dtype)
            scales = _scales(_nudged(run, module, delta, silent) - base.double(), delta, tolerance_for(base))
            if scales is None:
                continue
            mean = float(scales.mean())
            steady = bool(((scales - mean).abs() <= tolerance_for(base) * abs(mean)).all())
            new.append(StreamWriter(name_of[module], module, mean if steady else None, not writers))
            # What comes after it (a dropout, the module around it) passes the same test, but is not another writer.
            _, without = _recorded(run, name_of, [*silent, module])
            done |= {module}
            done |= {other for other in without if other in outputs and _differ(outputs[other], without[other])}
        if not new:
            return tuple(writers), base
        writers += new


def _scales(moved: Tensor, delta: Tensor, tolerance: float) -> Float[Tensor, "... position"] | None:
    """The factor ``c`` of each position if ``moved`` is ``c * delta`` at all of them, else None."""
    moved, delta = (rearrange(tensor, "... d_model -> (...) d_model") for tensor in (moved, delta.double()))
    scales = (moved * delta).sum(dim=-1) / (delta * delta).sum(dim=-1)
    off = (moved - scales[:, None] * delta).norm(dim=-1)
    fits = (off <= tolerance * scales.abs() * delta.norm(dim=-1)) & (scales.abs() > tolerance**2)
    return scales if bool(fits.all()) else None


def _recorded(
    run: Run, modules: dict[nn.Module, str], silent: _Silenced
) -> tuple[Tensor, dict[nn.Module, list[Tensor]]]:
    """The output of ``run`` with ``silent`` silenced, and the modules' outputs that could be added to the stream.

    There is one output per call of a module: a dropout may be called several times.
    """
    outputs: dict[nn.Module, list[Tensor]] = {}

    def record(module: nn.Module, _args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if isinstance(first, Tensor) and first.is_floating_point():
            outputs.setdefault(module, []).append(first.clone())

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(mark_as_ours(record)).remove)
        with _silenced(silent):
            base = run().clone()

    def fits(output: Tensor) -> bool:
        return output.shape[-1:] == base.shape[-1:] and output.numel() == base.numel()

    return base, {module: calls for module, calls in outputs.items() if all(map(fits, calls))}


def _nudged(run: Run, module: nn.Module, delta: Tensor, silent: _Silenced) -> Tensor:
    def nudge(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = first_tensor(output)
        return with_first_tensor(output, hidden + delta.reshape(hidden.shape).to(hidden.dtype))

    handle = module.register_forward_hook(mark_as_ours(nudge))
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
            stack.callback(module.register_forward_hook(mark_as_ours(silence)).remove)
        yield


def _differ(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return any(
        bool((one.double() - other.double()).norm() > tolerance_for(one) * one.double().norm())
        for one, other in zip(first, second, strict=True)
    )


def first_tensor(output: Any) -> Tensor:
    """A module's output, or the first one if there are several."""
    first = output[0] if isinstance(output, tuple) else output
    if not isinstance(first, Tensor):
        raise PersonaProbeError(f"a module returned {type(first).__name__}; expected a tensor")
    return first


def with_first_tensor(output: Any, first: Tensor) -> Any:
    """``output`` with ``first`` as its first tensor."""
    return (first, *output[1:]) if isinstance(output, tuple) else first


def tolerance_for(like: Tensor) -> float:
    """The largest rounding error in the dtype of ``like``, relative to a norm."""
    return _SINGLE if torch.finfo(like.dtype).bits >= 32 else _HALF
