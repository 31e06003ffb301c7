"""A safetensors file and the JSON card beside it, which appear together or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persona_probe.errors import PersonaProbeError


def write(path: str | Path, tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> Path:
    """Write ``path``.safetensors and ``path``.json; returns the former."""
    from safetensors.numpy import save_file

    weights, text = _files(path)
    weights.parent.mkdir(parents=True, exist_ok=True)
    part = weights.with_name(weights.name + ".part")
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, str(part))
    part.replace(weights)
    part = text.with_name(text.name + ".part")
    part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    part.replace(text)
    return weights


def read(path: str | Path, kind: str, names: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors ``names`` and the card, without its ``format``, which must be ``kind``.

    Raises:
        PersonaProbeError: if a file is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    weights, text = _files(path)
    for file in (weights, text):
        if not file.is_file():
            raise PersonaProbeError(f"{file}: no such file; a {kind} is a .safetensors and a .json beside it")
    try:
        card = json.loads(text.read_text(encoding="utf-8"))
        found = load_file(str(weights))
        tensors = {name: found[name] for name in names}
    except (json.JSONDecodeError, SafetensorError, KeyError) as error:
        raise PersonaProbeError(f"{weights}: is no saved {kind}: {error}") from error
    if not isinstance(card, dict) or card.get("format") != kind:
        raise PersonaProbeError(f"{text}: format is {card.get('format')!r}, expected {kind!r}")
    return tensors, {key: value for key, value in card.items() if key != "format"}


def _files(path: str | Path) -> tuple[Path, Path]:
    """The two files called ``path``, with or without either suffix; dots in the name are kept."""
    name = Path(path).name
    stem = name.removesuffix(".safetensors").removesuffix(".json")
    return Path(path).with_name(stem + ".safetensors"), Path(path).with_name(stem + ".json")
