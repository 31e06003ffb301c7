"""A direction as a folder that can be uploaded to the Hugging Face Hub, and read from there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from persona_probe.directions.direction import Direction
from persona_probe.errors import PATH, PersonaProbeError, check_types, library_message
from persona_probe.files import write_text
from persona_probe.models.stream.layers import LAYER_CONVENTION

_NAME = "direction"
_FILES = (f"{_NAME}.safetensors", f"{_NAME}.json")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LONGEST = 200
"""The longest value in the table, in characters; direction.json has all values in full."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+\-!|&~$])")
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
_LIMITS = """\
- The vectors live in the residual stream of one model (`model_hash`): use them on it and on models made from it.
- They are raw: length carries meaning, and differs from layer to layer.
- Persona directions are correlational until steered with; compare projections with those of a matched control.
- Steering can make a model worse in ways that were not measured."""


def write_hub_folder(direction: Direction, folder: str | Path, *, license: str | None = None) -> Path:
    """The folder, with ``direction.safetensors``, ``direction.json`` and a model card ``README.md`` written into it.

    Each file appears under its name only when it is complete. Everything in the card is published with it, including
    names and paths of models: read it first.

    Args:
        direction: what to write.
        folder: created if missing; files with these names in it are replaced.
        license: the Hub's identifier (``mit``, ``cc-by-4.0``, ...), for the card's header.

    Raises:
        PersonaProbeError: if ``folder`` is a file.

    >>> import numpy as np
    >>> import persona_probe as pp
    >>> evil = pp.Direction(np.array([[3.0, 4.0]]), (2,), {"name": "evil"})
    >>> folder = pp.directions.write_hub_folder(evil, "evil-direction", license="mit")
    >>> sorted(file.name for file in folder.iterdir())
    ['README.md', 'direction.json', 'direction.safetensors']
    >>> pp.directions.read_hub_folder(folder).at(2)
    array([3., 4.])
    """
    check_types(direction=(direction, Direction), folder=(folder, PATH))
    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise PersonaProbeError(f"{place}: is a file; a direction is published as a folder")
    direction.save(place / _NAME)
    write_text(place / "README.md", _readme(direction, license))
    return place


def read_hub_folder(path: str | Path, *, revision: str | None = None) -> Direction:
    """The direction in a folder that `write_hub_folder` wrote, local or on the Hub.

    Args:
        path: a folder; or, if there is none of that name, a Hub id (``owner/name``), from which only the direction's
            two files are downloaded.
        revision: branch, tag or commit on the Hub.

    Raises:
        PersonaProbeError: if there is neither, the Hub cannot be reached or has no such files, or they do not hold a
            direction.

    >>> import numpy as np
    >>> import persona_probe as pp
    >>> direction = pp.Direction(np.array([[3.0, 4.0]]), (2,), {"name": "evil"})
    >>> pp.directions.read_hub_folder(pp.directions.write_hub_folder(direction, "evil")).name
    'evil'
    """
    check_types(path=(path, PATH))
    place = Path(path)
    if not place.is_dir():
        if not HUB_ID.fullmatch(str(path)):
            raise PersonaProbeError(f"{path}: no such folder, and not a Hub id (owner/name)")
        place = _downloaded(str(path), revision)
    missing = [name for name in _FILES if not (place / name).is_file()]
    if missing:
        raise PersonaProbeError(f"{path}: has no {' and no '.join(missing)}, as write_hub_folder writes them")
    return Direction.load(place / _NAME)


def _downloaded(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:  # all errors of the Hub: no such repository, gated, offline, ...
        raise PersonaProbeError(
            f"{hub_id}: no such folder here, and it cannot be downloaded from the Hub "
            f"({library_message(error)}); check the name, the connection (HF_HUB_OFFLINE forbids it) and, for private "
            "repositories, `hf auth login`"
        ) from error


def _readme(direction: Direction, license: str | None) -> str:
    header: dict[str, Any] = {"tags": ["persona-probe", "steering-vector"], "library_name": "persona-probe"}
    base = _model_of(direction.card)
    if base and HUB_ID.fullmatch(base) and not Path(base).exists():
        header["base_model"] = base
    if license is not None:
        header["license"] = license
    facts = [
        f"| {_plain(name)} | {_plain(value)} |"
        for name, value in _entries(direction.card)
        if not _is_per_layer(value, len(direction.layers))
    ]
    layer = direction.layers[len(direction.layers) // 2]
    return "\n".join(
        [
            "---",
            yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(),
            "---",
            "",
            f"# {_plain(direction.name)}",
            "",
            f"A direction in the residual stream{' of ' + _plain(base) if base else ''}: {len(direction.layers)} "
            f"layers, width {direction.d_model}, written by persona-probe.",
            "",
            "```python",
            "from persona_probe.directions.hub_folder import read_hub_folder",
            'direction = read_hub_folder("owner/name")  # this repository, or a local copy',
            f"direction.at({layer})  # the raw vector of layer {layer}",
            "```",
            "",
            f"**Layers:** {LAYER_CONVENTION}.",
            "",
            "| | |",
            "|---|---|",
            *facts,
            "",
            *_layer_table(direction),
            "",
            "## Limits",
            "",
            _LIMITS,
            "",
        ]
    )


def _model_of(card: Mapping[str, Any]) -> str | None:
    """The model's name, from the card or from its positive pole."""
    positive = card.get("positive")
    name = card.get("model") or (positive.get("model") if isinstance(positive, Mapping) else None)
    return str(name) if name else None


def _entries(card: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of the card; nested ones with their path."""
    for key, value in card.items():
        if isinstance(value, Mapping):
            yield from _entries(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_per_layer(value: object, n_layers: int) -> bool:
    """Whether it is a list with one number per layer: split-half cosines, their nulls, caps, ..."""
    return (
        isinstance(value, list)
        and len(value) == n_layers
        and all(isinstance(item, float) or item is None for item in value)
        and any(item is not None for item in value)
    )


def _layer_table(direction: Direction) -> list[str]:
    columns = {"norm": [float(norm) for norm in direction.norms()]}
    columns |= {name: value for name, value in _entries(direction.card) if _is_per_layer(value, len(direction.layers))}
    lines = [f"| layer | {' | '.join(map(_plain, columns))} |", "|---:" * (len(columns) + 1) + "|"]
    for row, layer in enumerate(direction.layers):
        cells = (values[row] for values in columns.values())
        lines.append(f"| {layer} | {' | '.join('' if cell is None else f'{cell:.4g}' for cell in cells)} |")
    return lines


def _plain(value: object) -> str:
    """One line of Markdown that shows ``value`` literally."""
    written = str(value) if isinstance(value, str | int | float) else json.dumps(value, default=str)
    text = _UNSEEN.sub(" ", written)
    return _SPECIAL.sub(r"\\\1", text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…")
