"""The function that reads published torch and safetensors files."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from persona_probe.directions.direction import Direction
from persona_probe.directions.formats import (
    assistant_axis,
    assistant_axis_capping,
    layer_tensors,
    persona_vectors,
    refusal_direction,
)
from persona_probe.directions.formats.assembly import described, load_tensors, published_direction
from persona_probe.errors import PATH, WHOLE, PersonaProbeError, PersonaProbeWarning, check_types
from persona_probe.models.model import Model

FORMATS: dict[str, ModuleType] = {
    module.ABOUT["format"]: module
    for module in (persona_vectors, assistant_axis, assistant_axis_capping, refusal_direction, layer_tensors)
}
_OTHERS = {
    ".gguf": "read it with pp.integrations.read_gguf",
    ".json": "if Direction.save wrote it, read it with pp.Direction.load; else give the file with the vectors",
}
_OPTIONS = {"assistant-axis-capping": "experiment", "refusal-direction": "position"}


def read_published(
    model: Model,
    path: str | Path,
    format: str | None = None,
    *,
    position: int | None = None,
    experiment: str | None = None,
) -> Direction:
    """A direction that others have published as a torch or safetensors file.

    The files do not say which model they belong to, so it must be given. Layers are converted to our convention; the
    card (``card["source"]``) names the original convention, the file and its SHA-256, and what was left out.

    Args:
        model: the model that the vectors were found in: layers and width are checked, and its hash goes into the card.
        path: the ``.pt`` or ``.safetensors`` file. Only tensors are loaded: a pickle that would run code is refused.
        format: ``persona-vectors``, ``assistant-axis``, ``assistant-axis-capping``, ``refusal-direction``, or
            ``layer-tensors``: one tensor for each layer, with its number in the name, or one with a row for each. By
            default the only format that fits shape, keys and file name; the card then says that it was guessed.
        position: for ``mean_diffs.pt``: the token position, -1 for the last prompt token.
        experiment: for a capping configuration: the experiment, such as ``layers_46:54-p0.25``.

    Returns:
        A direction with vectors ``(layer, d_model)``, raw, for the layers that the file has in our convention.

    Raises:
        PersonaProbeError: if the file is missing, damaged or holds more than tensors; no format or several fit; shape
            or width are not the model's (both are named); or vectors are zero or not finite.

    Warns:
        PersonaProbeWarning: if the format is guessed as ``layer-tensors``, which says nothing about its numbers.

    >>> import torch
    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> torch.save(torch.ones(model.n_layers + 1, model.d_model), "evil_response_avg_diff.pt")  # as the authors do
    >>> direction = pp.directions.read_published(model, "evil_response_avg_diff.pt")
    >>> direction.name, direction.layers, direction.card["source"]["format"]
    ('evil_response_avg_diff', (0, 1, 2, 3), 'persona-vectors')
    """
    check_types(
        model=(model, Model),
        path=(path, PATH),
        format=(format, str, None),
        position=(position, WHOLE, None),
        experiment=(experiment, str, None),
    )
    file = Path(path)
    if file.suffix in _OTHERS:
        raise PersonaProbeError(f"{file}: is not a torch or safetensors file; {_OTHERS[file.suffix]}")
    if format is not None and format not in FORMATS:
        raise PersonaProbeError(f"unknown format {format!r}: choose one of {', '.join(FORMATS)}")
    content = load_tensors(file)
    name = format or _guessed(content, file, model)
    options: dict[str, Any] = {"position": position, "experiment": experiment}
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if _OPTIONS.get(name) != option:
            raise PersonaProbeError(f"{file}: the format {name} does not take {option}=; leave it out")
    if format is None and name == "layer-tensors":
        warnings.warn(
            f"{file}: does not say what its layer numbers mean; they are taken as those of the blocks at whose output "
            "the vectors act, counted from 0. If that is right, give format='layer-tensors'",
            PersonaProbeWarning,
            stacklevel=2,
        )
    rows = FORMATS[name].read(content, file, model, **given)
    return published_direction(rows, file, model, {**FORMATS[name].ABOUT, "format_guessed": format is None})


def _guessed(content: Any, file: Path, model: Model) -> str:
    fitting = [name for name, module in FORMATS.items() if module.matches(content, file, model)]
    if not fitting and file.suffix == ".safetensors" and isinstance(content, torch.Tensor):
        fitting = ["layer-tensors"] if tuple(content.shape) == (model.n_layers, model.d_model) else []
    if len(fitting) != 1:
        raise PersonaProbeError(
            f"{file}: holds {described(content)}, and {' and '.join(fitting) or 'no known format'} fits that for "
            f"{model.name} ({model.n_layers} layers, d_model {model.d_model}); give format= one of {', '.join(FORMATS)}"
        )
    return fitting[0]
