"""Opening others' ``.pt`` files without running what is in them."""

from __future__ import annotations

import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import torch

from persona_probe.errors import PersonaProbeError

_DAMAGED = (RuntimeError, EOFError, LookupError, TypeError, ValueError, AttributeError, AssertionError, struct.error)


def load_tensors(file: Path) -> Any:
    """What ``torch.save`` put into ``file``: tensors on the CPU, in plain lists and dicts at most.

    Raises:
        PersonaProbeError: if the file is missing or damaged, or holds objects whose loading would run code.
    """
    if not file.is_file():
        raise PersonaProbeError(f"{file}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles of unusual protocols, which then load or are refused
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PersonaProbeError(
            f"{file}: is no torch file of tensors alone, and loading anything else could run code, so it was not "
            f"loaded; if you trust it, save its tensors again by themselves ({_reason(error)})"
        ) from error
    except _DAMAGED as error:
        raise PersonaProbeError(f"{file}: cannot be read as a torch file: {_reason(error)}") from error


def described(content: Any) -> str:
    """What a file holds, in words for messages: ``a tensor of shape (29, 3584)``, ``a dict with keys ...``."""
    if isinstance(content, torch.Tensor):
        return f"a tensor of shape {tuple(content.shape)}"
    if isinstance(content, dict):
        keys = ", ".join(repr(key) for key in list(content)[:8])
        return f"a dict with keys {keys}{', ...' if len(content) > 8 else ''}" if keys else "an empty dict"
    return f"a {type(content).__name__}"


def _reason(error: Exception) -> str:
    """The reason alone: torch's advice on how to load unsafely is not ours to repeat."""
    lines = (
        line.strip() for line in str(error).splitlines() if "torch.load" not in line and "weights_only" not in line
    )
    return next(filter(None, lines), type(error).__name__)
