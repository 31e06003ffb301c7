"""Refusal directions: ``direction.pt`` with ``direction_metadata.json``, or the candidates in ``mean_diffs.pt``.

Arditi et al. 2024, "Refusal in language models is mediated by a single direction", arXiv:2406.11717; repository
andyrdt/refusal_direction. ``pipeline/submodules/generate_directions.py`` reads with forward *pre*-hooks on blocks:
layer l there is the input of block l (``resid_pre``, as the plots of ``select_direction.py`` say), which is our layer
l-1; layer 0 is the embedding. ``mean_diffs.pt`` is ``(position, layer, d_model)``, float64, positions counted from the
end of the prompt (the template's tokens after the instruction); ``direction.pt`` is the one candidate that was chosen,
``(d_model,)``, whose ``pos`` and ``layer`` ``run_pipeline.py`` writes next to it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from persona_probe.directions.formats.assembly import Rows, array_of
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model

ABOUT = {
    "format": "refusal-direction",
    "repository": "andyrdt/refusal_direction",
    "paper": "Arditi et al. 2024, arXiv:2406.11717",
}
METADATA = "direction_metadata.json"
_CONVENTION = "layer l is the input of block l (resid_pre), counted from 0: our layer l-1"
_EMBEDDING = "layer 0: the embedding, no layer's output"


def matches(content: Any, file: Path, model: Model) -> bool:
    """Whether it is one vector with a file of metadata next to it, or one vector per position and layer."""
    if not isinstance(content, torch.Tensor):
        return False
    shape = tuple(content.shape)
    chosen = shape == (model.d_model,) and (file.parent / METADATA).is_file()
    return chosen or (len(shape) == 3 and shape[1:] == (model.n_layers, model.d_model))


def read(content: Any, file: Path, model: Model, *, position: int | None = None) -> Rows:
    """The direction, or the candidates at one position; their layer l is our layer l-1.

    Raises:
        PersonaProbeError: for another shape, missing or unreadable metadata, a direction of the embedding, or (for
            candidates) no position.
    """
    if isinstance(content, torch.Tensor) and content.ndim == 3:
        return _candidates(content, file, model, position)
    if position is not None:
        raise PersonaProbeError(f"{file}: holds one vector, whose position is in {METADATA}; leave position= out")
    array = array_of(content, file, "a refusal direction", (model.d_model,), "(d_model,)")
    about = file.parent / METADATA
    if not about.is_file():
        raise PersonaProbeError(f"{about}: no such file; it says which layer {file.name} belongs to")
    try:
        metadata = json.loads(about.read_text(encoding="utf-8"))
        layer, chosen = metadata["layer"], metadata["pos"]
    except (ValueError, KeyError, TypeError) as error:
        raise PersonaProbeError(f"{about}: is not an object {{'pos': ..., 'layer': ...}}: {error!r}") from error
    if type(layer) is not int or not 0 <= layer < model.n_layers:
        raise PersonaProbeError(f"{about}: layer is {layer!r}; {model.name} has layers 0 to {model.n_layers - 1}")
    if layer == 0:
        raise PersonaProbeError(
            f"{about}: layer 0 is the input of the first block, the embedding, which is not the output of any layer"
        )
    return Rows(array[None], (layer - 1,), _CONVENTION, (), {"layer": layer, "position": chosen})


def _candidates(content: torch.Tensor, file: Path, model: Model, position: int | None) -> Rows:
    n = model.n_layers
    array = array_of(content, file, "a table of candidates", (None, n, model.d_model), "(position, layers, d_model)")
    if position is None or not -len(array) <= position < 0:
        raise PersonaProbeError(
            f"{file}: holds candidates at {len(array)} positions; give position= -{len(array)} to -1, counted from the "
            f"end of the prompt (given: {position})"
        )
    left_out = [_EMBEDDING, *([f"{len(array) - 1} other positions"] if len(array) > 1 else [])]
    about = {"position": position}
    return Rows(array[position, 1:], tuple(range(n - 1)), _CONVENTION, left_out, about)
