"""The one call that reads others' torch files."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from persona_probe.directions.direction import Direction
from persona_probe.directions.formats import (
    assistant_axis,
    assistant_axis_capping,
    persona_vectors,
    refusal_direction,
)
from persona_probe.directions.formats.assembly import described, load_tensors, published_direction
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model

FORMATS: dict[str, ModuleType] = {
    module.ABOUT["format"]: module
    for module in (persona_vectors, assistant_axis, assistant_axis_capping, refusal_direction)
}
_OTHERS = {
    ".gguf": "persona_probe.integrations.gguf.read_gguf",
    ".safetensors": "Direction.load",
    ".json": "Direction.load",
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
    """Read a direction that others have published as a torch file.

    The files do not say which model they belong to, so you do; layers are brought to our convention, and the card
    (``card["source"]``) says the original one, the file's name and SHA-256, and what was left out.

    Args:
        model: the model the vectors were found in: layers and width are checked, and its hash goes into the card.
        path: the ``.pt`` file. Only tensors are loaded: a pickle that would run code is refused.
        format: ``persona-vectors``, ``assistant-axis``, ``assistant-axis-capping`` or ``refusal-direction``. Without it
            the one format that fits shape, keys and file name is taken, and the card says so.
        position: of ``mean_diffs.pt``, -1 being the last prompt token.
        experiment: of a capping configuration, such as ``layers_46:54-p0.25``.

    Returns:
        A direction with vectors ``(layer, d_model)``, raw, for the layers that the file has in our convention.

    Raises:
        PersonaProbeError: if the file is missing, damaged or holds more than tensors; no format or several fit; shape
            or width are not the model's (both are named); or vectors are zero or not finite.
    """
    file = Path(path)
    if file.suffix in _OTHERS:
        raise PersonaProbeError(f"{file}: is no torch file; read it with {_OTHERS[file.suffix]}")
    if format is not None and format not in FORMATS:
        raise PersonaProbeError(f"unknown format {format!r}: choose one of {', '.join(FORMATS)}")
    content = load_tensors(file)
    name = format or _guessed(content, file, model)
    options: dict[str, Any] = {"position": position, "experiment": experiment}
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if _OPTIONS.get(name) != option:
            raise PersonaProbeError(f"{file}: format {name} takes no {option}=; leave it out")
    rows = FORMATS[name].read(content, file, model, **given)
    return published_direction(rows, file, model, {**FORMATS[name].ABOUT, "format_guessed": format is None})


def _guessed(content: Any, file: Path, model: Model) -> str:
    fitting = [name for name, module in FORMATS.items() if module.matches(content, file, model)]
    if len(fitting) != 1:
        raise PersonaProbeError(
            f"{file}: holds {described(content)}, and {' and '.join(fitting) or 'no known format'} fits that for "
            f"{model.name} ({model.n_layers} layers, d_model {model.d_model}); say format= one of {', '.join(FORMATS)}"
        )
    return fitting[0]
