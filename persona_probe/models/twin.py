"""A second module tree on the same weights."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from torch import Tensor, nn

from persona_probe.errors import PersonaProbeError

ModuleT = TypeVar("ModuleT", bound=nn.Module)
HookT = TypeVar("HookT", bound=Callable[..., Any])
OWN_HOOK = "_persona_probe_hook"


def structural_twin(module: ModuleT) -> ModuleT:
    """Copy ``module``'s tree of modules while sharing every parameter and buffer.

    Adapters and hooks put on the twin leave the original alone, and the weights exist once (those of quantised layers
    too, which bitsandbytes keeps beside the parameters). Our own hooks (and a ``generate`` that steering has wrapped)
    stay behind; Hugging Face's recorder of hidden states, which is a hook too, comes along.

    Raises:
        PersonaProbeError: if weights are offloaded, since each twin would hold them once more.
    """
    if is_offloaded(module):
        raise PersonaProbeError(
            "parts of the model are offloaded to the CPU or disk, where no second module tree (an adapter on the same "
            "weights, a bridge) can share them; load with quantize= or a smaller dtype, so that it fits"
        )
    shared: dict[int, Any] = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    for submodule in module.modules():
        for value in vars(submodule).values():
            shared |= {id(tensor): tensor for tensor in _tensors_in(value)}
    twin = copy.deepcopy(module, shared)
    for submodule in twin.modules():
        if getattr(vars(submodule).get("generate"), OWN_HOOK, False):
            del submodule.generate
        for hooks in (submodule._forward_hooks, submodule._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if getattr(hook, OWN_HOOK, False)]:
                del hooks[key]
    return twin


@contextlib.contextmanager
def without_own_hooks(module: nn.Module) -> Iterator[None]:
    """Take our own hooks off ``module`` and all within it, and put them back when the context closes."""
    kept: list[tuple[dict[int, Any], dict[int, Any]]] = []
    try:
        for submodule in module.modules():
            for hooks in (submodule._forward_hooks, submodule._forward_pre_hooks):
                own_ones = [key for key, hook in hooks.items() if getattr(hook, OWN_HOOK, False)]
                if own_ones:
                    kept.append((hooks, dict(hooks)))
                    for key in own_ones:
                        del hooks[key]
        yield
    finally:
        for hooks, before in kept:
            hooks.clear()
            hooks.update(before)


def is_offloaded(module: nn.Module) -> bool:
    """Whether accelerate keeps some of the weights elsewhere between forwards."""
    return any(parameter.device.type == "meta" for parameter in module.parameters())


def _tensors_in(value: Any, depth: int = 2) -> Iterator[Tensor]:
    """Tensors that a module holds otherwise than as parameters: itself, or in the state of a quantised layer."""
    if isinstance(value, Tensor):
        yield value
    elif depth and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type) and not callable(value):
        for inner in vars(value).values():
            yield from _tensors_in(inner, depth - 1)


def own(hook: HookT) -> HookT:
    """Mark ``hook`` as one of ours, so that twins made while it is on do not inherit it."""
    setattr(hook, OWN_HOOK, True)
    return hook
