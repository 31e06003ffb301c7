"""Content hashes: the same for equal values, on every machine and in every process."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.errors import PersonaProbeError

_DIGITS = 24
_CHUNK = 2**22


def digest(value: Any) -> str:
    """Twenty-four hex digits that change with the content of ``value``.

    Args:
        value: numbers, text, arrays, tables, containers of these, and objects that are made of them (two are the same
            if their classes and attributes are; attributes that start with two underscores are left out).

    Raises:
        PersonaProbeError: if something in it, such as a function, has no content that could be compared.
    """
    hasher = hashlib.sha256()
    _add(hasher, value)
    return hasher.hexdigest()[:_DIGITS]


def digest_files(folder: Path) -> str:
    """A digest of the names and contents of all files in a folder, or of one file."""
    hasher = hashlib.sha256()
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    for file in files:
        _text(hasher, file.relative_to(folder).as_posix())
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                hasher.update(chunk)
    return hasher.hexdigest()[:_DIGITS]


def _add(hasher: Any, value: Any) -> None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        _text(hasher, f"{type(value).__name__} {value}")
    elif isinstance(value, float):
        hasher.update(b"float" + struct.pack("<d", value))
    elif isinstance(value, bytes):
        hasher.update(b"bytes" + struct.pack("<q", len(value)) + value)
    elif isinstance(value, Path | datetime.date):
        _text(hasher, f"{type(value).__name__} {value}")
    elif isinstance(value, np.ndarray):
        _array(hasher, value)
    elif isinstance(value, pd.DataFrame):
        _add(hasher, {str(name): value[name].tolist() for name in value.columns})
    elif isinstance(value, Mapping):
        _text(hasher, f"mapping {len(value)}")
        for key in sorted(value, key=repr):
            _add(hasher, key)
            _add(hasher, value[key])
    elif isinstance(value, list | tuple):
        _text(hasher, f"sequence {len(value)}")
        for item in value:
            _add(hasher, item)
    elif isinstance(value, set | frozenset):
        _add(hasher, sorted(value, key=repr))
    elif hasattr(value, "detach"):
        _array(hasher, value.detach().float().cpu().numpy())
    elif dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
        _object(hasher, value)
    else:
        raise PersonaProbeError(f"{type(value).__name__} {value!r} has no content to compare")


def _object(hasher: Any, value: Any) -> None:
    if callable(value):
        raise PersonaProbeError(f"{value!r} is a function; its content cannot be compared")
    _text(hasher, f"object {type(value).__qualname__}")  # not where it lives: classes move
    names = (
        [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else sorted(vars(value))
    )
    _add(hasher, {name: getattr(value, name) for name in names if not name.startswith("__")})


def _array(hasher: Any, values: np.ndarray) -> None:
    if values.dtype == object:
        _add(hasher, values.tolist())
        return
    _text(hasher, f"array {values.dtype.str} {values.shape}")
    hasher.update(np.ascontiguousarray(values).tobytes())


def _text(hasher: Any, text: str) -> None:
    # With its length, so that two texts cannot run into each other; a lone surrogate must not stop a study.
    encoded = text.encode("utf-8", errors="surrogatepass")
    hasher.update(struct.pack("<q", len(encoded)) + encoded)
