"""Vectors by layer without any other sign of who wrote them: one tensor for each layer, or one with a row for each.

A safetensors or torch file with tensors ``(d_model,)`` (or ``(1, d_model)``) whose names hold the layer's number
(``layer_12``, ``12``, ``model.layers.12``), as steering libraries write them, or a single tensor ``(n_layers,
d_model)``. Such files do not say what a number means; it is taken as that of the block at whose output the vector acts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from persona_probe.directions.formats.assembly import Rows, array_of, described
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model

ABOUT = {"format": "layer-tensors"}
_NUMBER = re.compile(r"(?!.*(?:^|[^A-Za-z0-9])-\d)\D*(\d+)\D*")
"""The only number in a name; a minus before it, unless it follows a word (``layer-12``), makes it another number."""
_ELSEWHERE = re.compile(
    r"(?<![^._])(?:self_attn|attn|attention|mlp|hook_resid_(?:pre|mid)|hook_z|hook_attn_out|hook_mlp_out)(?![^.])",
    re.IGNORECASE,
)
"""Names of places that are not a block's output; not a trait's name, such as ``attention_seeking``."""
_CONVENTION = "the number of a tensor (or row) is taken as that of the block whose output it acts on: our layer"


def matches(content: Any, _file: Path, _model: Model) -> bool:
    """Whether every tensor has a layer's number in its name."""
    return isinstance(content, Mapping) and bool(content) and None not in map(_number, content)


def read(content: Any, file: Path, model: Model) -> Rows:
    """The vectors; number l is our layer l.

    Raises:
        PersonaProbeError: if a name holds no number or several, two hold the same, a layer does not exist, or a vector
            does not fit the model.
    """
    n, d_model = model.n_layers, model.d_model
    if isinstance(content, torch.Tensor):
        rows = array_of(content, file, "a tensor of vectors by layer", (n, d_model), "(layers, d_model)")
        return Rows(rows, tuple(range(n)), _CONVENTION)
    if not isinstance(content, Mapping) or not content:
        what = described(content)
        raise PersonaProbeError(f"{file}: vectors by layer are one tensor, or one for each layer; this is {what}")
    vectors: dict[int, np.ndarray] = {}
    for name, tensor in content.items():
        layer = _number(name)
        if place := _ELSEWHERE.search(str(name)):
            raise PersonaProbeError(
                f"{file}: tensor {name!r} names {place[0]!r}, which is not the output of a block, where directions are "
                "added and projected on (layer l's input is the output of block l - 1); if the vectors fit there, save "
                "them under numbers alone"
            )
        if layer is None or layer in vectors or not 0 <= layer < n:
            raise PersonaProbeError(
                f"{file}: tensor {name!r} does not name one layer of {model.name}, 0 to {n - 1}, by a number that no "
                "other tensor has (numbers are those of blocks, counted from 0); save the tensors under such names"
            )
        flat = tensor[0] if isinstance(tensor, torch.Tensor) and tensor.ndim == 2 and len(tensor) == 1 else tensor
        vectors[layer] = array_of(flat, file, f"tensor {name!r}", (d_model,), "(d_model,)")
    layers = tuple(sorted(vectors))
    return Rows(np.stack([vectors[layer] for layer in layers]), layers, _CONVENTION)


def _number(name: object) -> int | None:
    """The only number in the name of a tensor."""
    found = _NUMBER.fullmatch(str(name))
    return None if found is None else int(found[1])
