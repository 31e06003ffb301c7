"""A second module tree on the same weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
HookT = TypeVar("HookT", bound=Callable[..., Any])
OWN_HOOK = "_persona_probe_hook"


def structural_twin(module: ModuleT) -> ModuleT:
    """Copy ``module``'s tree of modules while sharing every parameter and buffer.

    Adapters and hooks put on the twin leave the original alone, and the weights exist once. Our own hooks (and a
    ``generate`` that steering has wrapped) stay behind; Hugging Face's recorder of hidden states, which is a hook too,
    comes along.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    twin = copy.deepcopy(module, shared)
    for submodule in twin.modules():
        if getattr(vars(submodule).get("generate"), OWN_HOOK, False):
            del submodule.generate
        for hooks in (submodule._forward_hooks, submodule._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if getattr(hook, OWN_HOOK, False)]:
                del hooks[key]
    return twin


def own(hook: HookT) -> HookT:
    """Mark ``hook`` as one of ours, so that twins made while it is on do not inherit it."""
    setattr(hook, OWN_HOOK, True)
    return hook
