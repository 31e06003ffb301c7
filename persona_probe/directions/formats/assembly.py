"""From published torch files to a direction: no pickle runs code, and every tensor's shape is checked."""

from __future__ import annotations

import hashlib
import pickle
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from persona_probe.directions.direction import Direction, card_of_model
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model

_DAMAGED = (RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError, AssertionError, struct.error)


@dataclass(frozen=True)
class Rows:
    """The vectors that a format has read from a file.

    Attributes:
        vectors: ``(layer, d_model)``, float32, raw.
        layers: our layer number of each row.
        convention: what the layer numbers in the file mean.
        left_out: what is in the file but not in ``vectors``, and why.
        about: further facts for the card.
    """

    vectors: Float[np.ndarray, "layer d_model"]
    layers: Sequence[int]
    convention: str
    left_out: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


def array_of(content: Any, file: Path, what: str, shape: Sequence[int | None], axes: str) -> np.ndarray:
    """A tensor as a float32 NumPy array, if it has ``shape`` (None: any length).

    Args:
        content: what was loaded.
        file: the file's name, for messages.
        what: what is expected, for messages.
        shape: the expected shape.
        axes: what the axes are, for messages.

    Raises:
        PersonaProbeError: for anything but a real floating-point tensor of that shape, naming both shapes.
    """
    if not isinstance(content, torch.Tensor) or not content.is_floating_point():
        kind = f"{described(content)} of {content.dtype}" if isinstance(content, torch.Tensor) else described(content)
        raise PersonaProbeError(f"{file}: {what} is a floating-point tensor {axes}, this is {kind}")
    seen = tuple(content.shape)
    if len(seen) != len(shape) or any(want not in (None, got) for want, got in zip(shape, seen, strict=True)):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise PersonaProbeError(
            f"{file}: {what} has shape {seen}; for this model it must be ({wanted}) = {axes}: the file belongs to "
            "another model, or has another format"
        )
    return np.asarray(content.detach().to(torch.float32).numpy())


def published_direction(rows: Rows, file: Path, model: Model, source: Mapping[str, Any]) -> Direction:
    """A direction of ``model`` with the card of a published one.

    Args:
        rows: the vectors that the format has read.
        file: the file that they are from; its name and SHA-256 go into the card.
        model: the model that the vectors belong to.
        source: format, repository and paper.

    Raises:
        PersonaProbeError: for values that are not finite, or a vector that is zero, naming file and layer.
    """
    for layer, vector in zip(rows.layers, rows.vectors, strict=True):
        if not np.isfinite(vector).all():
            raise PersonaProbeError(f"{file}: the vector of our layer {layer} holds values that are not finite")
        if not vector.any():
            raise PersonaProbeError(f"{file}: the vector of our layer {layer} is zero: there is nothing to project on")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    # The files do not say with which chat template the vectors were read.
    of_model = {key: value for key, value in card_of_model(model).items() if key != "template_hash"}
    card = {
        "name": file.stem,
        "finder": "published",
        **of_model,
        "source": {
            **source,
            "file": file.name,
            "sha256": digest,
            "layer_convention": rows.convention,
            "left_out": list(rows.left_out),
            **rows.about,
        },
    }
    return Direction(np.ascontiguousarray(rows.vectors, dtype=np.float32), tuple(rows.layers), card)


def load_tensors(file: Path) -> Any:
    """The content of a file written by ``torch.save`` or safetensors: tensors on the CPU, in plain lists and dicts.

    Raises:
        PersonaProbeError: if the file is missing or damaged, or contains objects whose loading would run code.
    """
    if not file.is_file():
        raise PersonaProbeError(f"{file}: no such file")
    if file.suffix == ".safetensors":
        return _safetensors(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of unusual protocols, which then load or raise
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PersonaProbeError(
            f"{file}: is not a torch file that contains only tensors, and loading anything else could run code, so it "
            f"was not loaded; if you trust it, save its tensors again by themselves ({_reason(error)})"
        ) from error
    except _DAMAGED as error:
        raise PersonaProbeError(f"{file}: cannot be read as a torch file: {_reason(error)}") from error


def _safetensors(file: Path) -> Any:
    """The tensors of a safetensors file by name; if there is only one whose name holds no number, the tensor itself."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.with_suffix(".json").is_file() and b'"persona-probe direction' in file.with_suffix(".json").read_bytes():
        raise PersonaProbeError(f"{file}: was written by Direction.save; read it with pp.Direction.load")
    try:
        tensors = load_file(file)
    except (SafetensorError, *_DAMAGED) as error:
        raise PersonaProbeError(f"{file}: cannot be read as a safetensors file: {_reason(error)}") from error
    alone = len(tensors) == 1 and not any(character.isdigit() for character in next(iter(tensors)))
    return next(iter(tensors.values())) if alone else tensors


def described(content: Any) -> str:
    """A file's content in words, for messages: ``a tensor of shape (29, 3584)``, ``a dict with keys ...``."""
    if isinstance(content, torch.Tensor):
        return f"a tensor of shape {tuple(content.shape)}"
    if isinstance(content, dict):
        keys = ", ".join(repr(key) for key in list(content)[:8])
        return f"a dict with keys {keys}{', ...' if len(content) > 8 else ''}" if keys else "an empty dict"
    return f"a {type(content).__name__}"


def _reason(error: Exception) -> str:
    """The reason of an error, without torch's advice on how to load unsafely."""
    lines = (
        line.strip() for line in str(error).splitlines() if "torch.load" not in line and "weights_only" not in line
    )
    return next(filter(None, lines), type(error).__name__)
