"""The files of an adapter: its config, and the names and shapes of its weights."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from persona_probe.errors import PersonaProbeError, library_message
from persona_probe.models.loading.sources import ADAPTER_CONFIG, check_holds_no_adapters, repository_file, unsafe

_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""In the order in which PEFT looks for them; versions before 0.6 wrote the second."""


def adapter_config(path: str | Path, revision: str | None = None) -> dict[str, Any]:
    """What the adapter's ``adapter_config.json`` says.

    Raises:
        PersonaProbeError: if there is none, or it is not a JSON object.
    """
    file = repository_file(path, ADAPTER_CONFIG, revision)
    if file is None:
        check_holds_no_adapters(Path(path))
        raise PersonaProbeError(f"{path}: is not an adapter: it has no {ADAPTER_CONFIG}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PersonaProbeError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise PersonaProbeError(f"{file}: holds a {type(config).__name__}, not the settings of an adapter")
    return config


def adapter_shapes(path: str | Path, revision: str | None = None) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in the adapter's file, by name.

    Raises:
        PersonaProbeError: if there is no file of weights, or it cannot be read without running code that is in it.
    """
    file = next(filter(None, (repository_file(path, name, revision) for name in _WEIGHTS)), None)
    if file is None:
        missing = [] if repository_file(path, ADAPTER_CONFIG, revision) else [ADAPTER_CONFIG]
        if missing:
            check_holds_no_adapters(Path(path))
        raise PersonaProbeError(
            f"{path}: is not an adapter: it has no {' and no '.join([*missing, ' or '.join(_WEIGHTS)])}"
        )
    try:
        if file.suffix == ".safetensors":
            with safe_open(str(file), framework="pt") as tensors:
                return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        weights = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PersonaProbeError(f"{file}: cannot be read: {unsafe(error)}") from error
    except Exception as error:  # what is not a pickle at all fails in many ways
        raise PersonaProbeError(f"{file}: cannot be read: {library_message(error)}") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise PersonaProbeError(f"{file}: holds other things than tensors by name, so it is not an adapter's weights")
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}
