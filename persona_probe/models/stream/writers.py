"""Which modules write to the residual stream, found by measuring, not from a list of architectures or names."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.residual_stream import ResidualStream, uncompiled
from persona_probe.models.stream.writer_search import (
    StreamWriter,
    first_tensor,
    search_all,
    tolerance_for,
    with_first_tensor,
)
from persona_probe.models.twin import mark_as_ours, without_own_hooks

_CARRIED = 1e-3
"""The smallest share of a block's input that must be in its output (Gemma 4 scales the stream down)."""

_KNOWN: WeakKeyDictionary[ResidualStream, tuple[tuple[int, ...], list[Writers]]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Writers:
    """All modules that write to the stream in one block, or before the first one.

    Attributes:
        layer: the number of the block, or None for what makes the first block's input.
        writers: the modules.
        complete: whether these are all writers: without them a block returns its input (times a number), and the first
            block's input is zero.
    """

    layer: int | None
    writers: tuple[StreamWriter, ...]
    complete: bool


def find_writers(stream: ResidualStream, ids: Int[Tensor, "one position"]) -> list[Writers]:
    """The modules whose outputs are added to the residual stream.

    A module is a writer if its block's output moves by ``c * delta`` at every token when its own output moves by a
    random ``delta``. Writers that were found are silenced, which uncovers writers that later modules read, and so on.

    Args:
        stream: the stream of a model; each of its blocks runs a few dozen times on one short text.
        ids: token ids ``(1, position)``.

    Returns:
        The writers of the first block's input, followed by those of each block.

    Raises:
        PersonaProbeError: if a block cannot be run by itself.
    """
    with torch.no_grad(), without_own_hooks(stream.backbone), warnings.catch_warnings():
        # TransformerLens' norms warn while they are being tested.
        warnings.filterwarnings("ignore", message="A forward hook edited")
        return _find(stream, ids)


def _find(stream: ResidualStream, ids: Tensor) -> list[Writers]:
    calls: dict[int, tuple[tuple[Any, ...], dict[str, Any], Tensor]] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            calls[layer] = (args, kwargs, first_tensor(output).clone())

        return mark_as_ours(hook)

    with contextlib.ExitStack() as stack:
        for layer, block in enumerate(stream.blocks):
            stack.callback(block.register_forward_hook(keep(layer), with_kwargs=True).remove)
        stream.backbone(input_ids=ids, use_cache=False)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        everything = [_sources(stream, ids)]
        for layer, block in enumerate(stream.blocks):
            args, kwargs, expected = calls[layer]
            everything.append(_block_writers(block, layer, args, kwargs, expected))
    return everything


@contextlib.contextmanager
def changing_writes(
    stream: ResidualStream, change: Callable[[Float[Tensor, "... d_model"]], Tensor], ids: Int[Tensor, "one position"]
) -> Iterator[None]:
    """A context in which ``change`` is applied to the first block's input and to all that blocks write to the stream.

    Args:
        stream: the stream of a model.
        change: a linear function, such as a projection, so that changing each summand changes the sum in the same way.
        ids: token ids ``(1, position)`` to find the writers with.

    Raises:
        PersonaProbeError: if a block does more than add to the stream.
    """

    def entering(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def written(_module: nn.Module, _args: Any, output: Any) -> Any:
        return with_first_tensor(output, change(first_tensor(output)))

    blocks = _known_blocks(stream, ids)
    check_complete(blocks)
    with uncompiled(), contextlib.ExitStack() as stack:
        first = stream.blocks[0].register_forward_pre_hook(mark_as_ours(entering), with_kwargs=True, prepend=True)
        stack.callback(first.remove)
        for module in {writer.module: None for block in blocks for writer in block.writers}:
            stack.callback(module.register_forward_hook(mark_as_ours(written), prepend=True).remove)
        yield


def _known_blocks(stream: ResidualStream, ids: Tensor) -> list[Writers]:
    """The writers of the blocks; they are searched for again only if the module tree has changed."""
    # An adapter that is put on in place adds writers.
    tree = tuple(id(module) for module in stream.backbone.modules())
    known = _KNOWN.get(stream)
    if known is None or known[0] != tree:
        _KNOWN[stream] = known = (tree, find_writers(stream, ids)[1:])
    return known[1]


def check_complete(blocks: Sequence[Writers]) -> None:
    """Raise if a block writes more than its known writers do.

    Raises:
        PersonaProbeError: naming the first such block.
    """
    for block in blocks:
        if not block.complete:
            where = "the first block's input is" if block.layer is None else f"block {block.layer}'s output is"
            raise PersonaProbeError(
                f"{where} more than a sum of what its modules write (found: "
                f"{', '.join(writer.name for writer in block.writers) or 'none'}): the residual stream itself is "
                "normalised or mixed there, so that nothing can be kept out of it"
            )


def _sources(stream: ResidualStream, ids: Tensor) -> Writers:
    """The modules that make the first block's input."""
    inside = {id(module) for block in stream.blocks for module in block.modules()}
    holds = {id(module) for module in stream.backbone.modules() if any(b is stream.blocks[0] for b in module.modules())}
    names = {
        name: module
        for name, module in stream.backbone.named_modules()
        if id(module) not in inside and id(module) not in holds
    }

    def run() -> Tensor:
        def stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _Reached(args[0] if args else kwargs["hidden_states"])

        handle = stream.blocks[0].register_forward_pre_hook(mark_as_ours(stop), with_kwargs=True)
        try:
            stream.backbone(input_ids=ids, use_cache=False)
        except _Reached as reached:
            return reached.hidden
        finally:
            handle.remove()
        raise PersonaProbeError("the first block was not reached")

    whole = run()
    size = whole.double().norm()
    return Writers(None, *search_all(run, names, lambda rest: bool(rest.norm() <= tolerance_for(whole) * size)))


def _block_writers(
    block: nn.Module, layer: int, args: tuple[Any, ...], kwargs: dict[str, Any], expected: Tensor
) -> Writers:
    def run() -> Tensor:
        return first_tensor(block(*args, **kwargs))

    entered: Tensor = args[0] if args else kwargs["hidden_states"]
    if not torch.allclose(run(), expected, rtol=1e-3, atol=float(tolerance_for(expected) * expected.abs().max())):
        raise PersonaProbeError(f"block {layer} gives another output when it is run by itself: it has a state")
    x = entered.double()

    def carries(rest: Tensor) -> bool:
        carried = (rest * x).sum() / (x * x).sum()
        # If the input is not carried on, the stream was replaced (post-norm blocks of OPT-350m), not added to.
        return bool(carried.abs() > _CARRIED and (rest - carried * x).norm() <= tolerance_for(entered) * x.norm())

    return Writers(layer, *search_all(run, {name: module for name, module in block.named_modules() if name}, carries))


class _Reached(Exception):  # noqa: N818  (not an error: it ends a forward pass that need not continue)
    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden
