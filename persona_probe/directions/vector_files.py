"""A safetensors file and its JSON card, which are written together or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persona_probe.errors import PersonaProbeError
from persona_probe.files import plain, whole_file


def write(path: str | Path, tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> Path:
    """Write ``path``.safetensors and ``path``.json, and return the former.

    Both are written completely before either gets its final name.

    Raises:
        PersonaProbeError: if the card holds something that JSON cannot hold.
    """
    from safetensors.numpy import save_file

    weights, text = _files(path)
    try:
        written = json.dumps(plain(card), indent=2, allow_nan=False) + "\n"
    except TypeError as error:
        raise PersonaProbeError(f"{text}: the card holds something that JSON cannot hold: {error}") from error
    with whole_file(text) as card_part, whole_file(weights) as part:
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, str(part))
        card_part.write_text(written, encoding="utf-8")
    return weights


def read(path: str | Path, kind: str, names: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors ``names`` and the card with its ``layers``, without its ``format``, which must be ``kind``.

    Raises:
        PersonaProbeError: if a file is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    weights, text = _files(path)
    for file in (weights, text):
        if not file.is_file():
            others = "; vectors of others: pp.directions.read_published(model, path)" if weights.is_file() else ""
            raise PersonaProbeError(f"{file}: no such file; a {kind} is a .safetensors file and a .json file{others}")
    try:
        card = json.loads(text.read_text(encoding="utf-8"))
        loaded = load_file(str(weights))
        tensors = {name: loaded[name] for name in names}
        card["layers"] = [int(layer) for layer in card["layers"]]
    except (json.JSONDecodeError, SafetensorError, KeyError, TypeError) as error:
        raise PersonaProbeError(f"{weights}: is not a saved {kind}: {error}") from error
    if card.get("format") != kind:
        raise PersonaProbeError(f"{text}: format is {card.get('format')!r}, expected {kind!r}")
    return tensors, {key: value for key, value in card.items() if key != "format"}


def _files(path: str | Path) -> tuple[Path, Path]:
    """The two files that ``path`` names, with or without either suffix; other dots in the name stay."""
    name = Path(path).name
    stem = name.removesuffix(".safetensors").removesuffix(".json")
    return Path(path).with_name(stem + ".safetensors"), Path(path).with_name(stem + ".json")
