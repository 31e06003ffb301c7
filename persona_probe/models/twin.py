"""A second module tree on the same weights."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor, nn

from persona_probe.errors import PersonaProbeError

ModuleT = TypeVar("ModuleT", bound=nn.Module)
HookT = TypeVar("HookT", bound=Callable[..., Any])
OWN_HOOK = "_persona_probe_hook"


def structural_twin(module: ModuleT) -> ModuleT:
    """A copy of ``module``'s tree of modules that shares every parameter and buffer with it.

    Nothing in the twin is compiled. Adapters and hooks put on the twin do not change the original, and the weights
    exist only once (also those of quantised layers, which bitsandbytes stores outside of the parameters). Our own hooks
    (and a ``generate`` that steering has wrapped) are not copied; Hugging Face's recorder of hidden states, which is
    also a hook, is.

    Raises:
        PersonaProbeError: if weights are offloaded, since each twin would load its own copy of them.
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
    twin = _as_written(copy.deepcopy(module, shared))
    for submodule in twin.modules():
        if getattr(vars(submodule).get("generate"), OWN_HOOK, False):
            del submodule.generate
        for hooks in (submodule._forward_hooks, submodule._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if getattr(hook, OWN_HOOK, False)]:
                del hooks[key]
    return twin


def _as_written(module: ModuleT) -> ModuleT:
    """``module`` without anything that ``torch.compile`` made; compiled methods still belong to the original."""
    written: Any = getattr(module, "_orig_mod", module)
    for name, child in written.named_children():
        written._modules[name] = _as_written(child)
    for name in ("forward", "generate"):
        if hasattr(vars(written).get(name), "_torchdynamo_orig_callable"):
            delattr(written, name)
    return written  # type: ignore[no-any-return]


@contextlib.contextmanager
def without_own_hooks(module: nn.Module) -> Iterator[None]:
    """Remove our own hooks from ``module`` and everything in it, and put them back when the context closes."""
    changed: list[tuple[dict[int, Any], dict[int, Any]]] = []
    try:
        for submodule in module.modules():
            for hooks in (submodule._forward_hooks, submodule._forward_pre_hooks):
                ours = [key for key, hook in hooks.items() if getattr(hook, OWN_HOOK, False)]
                if ours:
                    changed.append((hooks, dict(hooks)))
                    for key in ours:
                        del hooks[key]
        yield
    finally:
        for hooks, before in changed:
            hooks.clear()
            hooks.update(before)


@contextlib.contextmanager
def packed_weights_kept(module: nn.Module) -> Iterator[None]:
    """Keep bitsandbytes from unpacking 4-bit weights, which it has packed for a CPU's kernels, in ``state_dict``.

    It does not transpose their scales back (0.50), so that the model, and every twin of it, would compute other numbers
    from then on. No forward pass may run inside.
    """
    states = [getattr(parameter, "quant_state", None) for parameter in module.parameters()]
    packed = [state for state in states if getattr(state, "packing_format_for_cpu", False)]
    for state in packed:
        state.packing_format_for_cpu = False  # type: ignore[union-attr]
    try:
        yield
    finally:
        for state in packed:
            state.packing_format_for_cpu = True  # type: ignore[union-attr]


def is_offloaded(module: nn.Module) -> bool:
    """Whether accelerate stores some of the weights elsewhere between forward passes."""
    return any(parameter.device.type == "meta" for parameter in module.parameters())


def _tensors_in(value: Any, depth: int = 2) -> Iterator[Tensor]:
    """The tensors in an attribute of a module: itself, or those in the state of a quantised layer."""
    if isinstance(value, Tensor):
        yield value
    elif depth and hasattr(value, "__dict__") and not isinstance(value, nn.Module | type) and not callable(value):
        for inner in vars(value).values():
            yield from _tensors_in(inner, depth - 1)


def mark_as_ours(hook: HookT) -> HookT:
    """``hook``, marked as one of ours, so that twins made while it is registered do not inherit it."""
    setattr(hook, OWN_HOOK, True)
    return hook


def own_tensors(module: nn.Module, names: Iterable[str], *, tied: bool = True) -> None:
    """Give ``module`` tensors of its own for the parameters ``names``, so that others that share them keep theirs.

    Args:
        module: a model, often a structural twin.
        names: of parameters, as in its state dict; other names are passed over.
        tied: whether parameters that are one tensor in ``module`` remain one.
    """
    places = [
        (f"{prefix}.{name}" if prefix else name, submodule, name, parameter)
        for prefix, submodule in module.named_modules(remove_duplicate=False)
        for name, parameter in submodule.named_parameters(recurse=False, remove_duplicate=False)
    ]
    wanted = set(names)
    chosen = {id(parameter) for path, _, _, parameter in places if path in wanted}
    copies: dict[int, nn.Parameter] = {}
    for path, submodule, name, parameter in places:
        if path in wanted or (tied and id(parameter) in chosen):
            if id(parameter) not in copies or not tied:
                copies[id(parameter)] = copy.deepcopy(parameter)
            submodule._parameters[name] = copies[id(parameter)]


def tie_as_tensors(hf: Any) -> None:
    """Make ``hf``'s config say whether its embedding and its head are one tensor, so that nothing ties them again."""
    ends = [end for end in (hf.get_input_embeddings(), hf.get_output_embeddings()) if end is not None]
    if len(ends) == 2 and getattr(ends[0], "weight", None) is not getattr(ends[1], "weight", None):
        for config in {id(config): config for config in (hf.config, hf.config.get_text_config())}.values():
            config.tie_word_embeddings = False
        if getattr(hf, "all_tied_weights_keys", None):
            hf.all_tied_weights_keys = hf.get_expanded_tied_weights_keys(all_submodels=True)
