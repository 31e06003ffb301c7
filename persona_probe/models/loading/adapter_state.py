"""Loading an adapter's tensors into the modules that carry it, and comparing both ways what is in use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.twin import own_tensors, tie_as_tensors

_NAME = "default"
"""What PEFT calls the only adapter of a model."""
_MADE_AGAIN = ("vblora_vector_bank", ".tinylora_v.")
"""Parts of names that PEFT reports as missing in each layer, though the file holds them once for all layers."""
_TWICE = (".modules_to_save.", ".token_adapter.")
"""Parts of the second names under which PEFT writes embeddings that were trained or resized."""
_SHOWN = 3


def load_adapter_state(
    carrying: Any, of_base: Collection[int], path: str | Path, revision: str | None, *, trainable: bool = False
) -> None:
    """Load the adapter at ``path`` into the ``PeftModel`` ``carrying``, which has its modules already.

    PEFT maps the names in the file to those of the modules and then calls ``load_state_dict``. Here, this first gives
    the model a tensor of its own for each parameter of the base that is in the file, and what is in use afterwards is
    compared with the file, both ways.

    Args:
        carrying: the base with the adapter's modules.
        of_base: ``id`` of each parameter of the base.
        path: folder or Hub id of the adapter.
        revision: branch, tag or commit of the adapter's Hub repository.
        trainable: whether the adapter is to be trained further.

    Raises:
        PersonaProbeError: if a tensor of the file has no place in the model or is not in it afterwards, or if the file
            lacks one.
    """
    loaded: dict[str, Tensor] = {}

    def load_state_dict(state: Mapping[str, Tensor], **how: Any) -> Any:
        loaded.update(state)
        _own_what_is_written(carrying, state, of_base)
        return type(carrying).load_state_dict(carrying, state, **how)

    vars(carrying)["load_state_dict"] = load_state_dict
    try:
        result = carrying.load_adapter(
            str(path),
            _NAME,
            is_trainable=trainable,
            torch_device=str(next(carrying.parameters()).device),
            revision=revision,
        )
    except KeyError as error:
        raise PersonaProbeError(
            f"{path}: its weight file lacks {error}, which its config names (modules_to_save, trainable_token_indices, "
            "target_modules); the adapter is incomplete"
        ) from error
    finally:
        del vars(carrying)["load_state_dict"]
    _compare(carrying, loaded, result.unexpected_keys, result.missing_keys, path)


def _own_what_is_written(carrying: Any, state: Mapping[str, Tensor], of_base: Collection[int]) -> None:
    """Give ``carrying`` own tensors for what ``state`` holds of the base; tied parameters remain one if it is equal."""
    written: dict[int, dict[str, Tensor]] = {}
    for name, parameter in carrying.named_parameters(remove_duplicate=False):
        if name in state and id(parameter) in of_base:
            written.setdefault(id(parameter), {})[name] = state[name]
    for tensors in written.values():
        first, *others = tensors.values()
        own_tensors(carrying, tensors, tied=all(torch.equal(first, other) for other in others))
    if written:
        tie_as_tensors(carrying.get_base_model())


def _compare(
    carrying: Any, loaded: Mapping[str, Tensor], unexpected: Collection[str], missing: Collection[str], path: str | Path
) -> None:
    """Raise if the file and the modules do not hold the same tensors with the same values."""
    if not loaded:
        raise PersonaProbeError(f"{path}: its weight file holds no tensor that PEFT could load")
    used = {name: tensor for name, tensor in loaded.items() if name not in unexpected}
    unexpected = [name for name in unexpected if not _written_twice(name, loaded[name], used)]
    if unexpected and not any(name.startswith("base_model.") for name in loaded):
        raise PersonaProbeError(
            f"{path}: the names in its weight file do not begin with 'base_model.model.', as PEFT's do (first: "
            f"{min(unexpected)!r}); save it with PEFT's save_pretrained, or add this to each name"
        )
    if unexpected:
        raise PersonaProbeError(
            f"{path}: {len(unexpected)} of {len(loaded)} tensors in its weight file have no place in the model, and "
            f"would be dropped: {_modules(carrying, unexpected)}; its config (target_modules, modules_to_save, "
            "layers_to_transform, use_dora, ...) does not cover them, or it was trained on another base"
        )
    missing = [name for name in missing if not any(part in name for part in _MADE_AGAIN)]
    if missing:
        raise PersonaProbeError(
            f"{path}: its weight file lacks {len(missing)} tensors that its config names, which would be left as they "
            f"are initialised: {_modules(carrying, missing)}; it was trained on another base, or is incomplete"
        )
    held = carrying.state_dict()
    for name, tensor in used.items():
        there = held[name]
        if not torch.allclose(there, tensor.to(there), rtol=0, atol=0, equal_nan=True):
            raise PersonaProbeError(
                f"{path}: after loading, {name!r} does not have the values in the adapter's file; it cannot be used"
            )


def _written_twice(name: str, tensor: Tensor, used: Mapping[str, Tensor]) -> bool:
    """Whether PEFT wrote a tensor that is in use under a second name too, as it does for embeddings."""
    return any(part in name for part in _TWICE) and any(torch.equal(tensor, other) for other in used.values())


def _modules(carrying: Any, names: Collection[str]) -> str:
    """The first few of the modules that tensors belong to."""
    mark = f".{getattr(carrying.base_model, 'prefix', 'lora_')}"
    modules = dict.fromkeys(name.removeprefix("base_model.model.").split(mark)[0] for name in sorted(names))
    return ", ".join(repr(name) for name in list(modules)[:_SHOWN]) + (", ..." if len(modules) > _SHOWN else "")
