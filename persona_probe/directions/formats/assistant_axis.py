"""The assistant axis: ``assistant_axis.pt``, or the ``axis.pt`` that its pipeline writes.

Lu et al. 2026, "The assistant axis", arXiv:2601.10387; repository safety-research/assistant-axis. A tensor
``(n_layers, d_model)`` (data set lu-christina/assistant-axis-vectors), or a dict that contains it as ``axis`` with both
means and their counts (``pipeline/5_axis.py``). Rows are read with forward hooks on blocks
(``assistant_axis/internals/activations.py``) and added at the output of the same block
(``assistant_axis/steering.py``): row l is our layer l. The axis points from role-play to the assistant.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from persona_probe.directions.formats.assembly import Rows, array_of
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model

ABOUT = {
    "format": "assistant-axis",
    "repository": "safety-research/assistant-axis",
    "paper": "Lu et al. 2026, arXiv:2601.10387",
}


def matches(content: Any, file: Path, model: Model) -> bool:
    """Whether it is a dict with an axis, or has one row per layer and "axis" in the file's name.

    The name matters, since others save block *inputs* in the same shape.
    """
    if isinstance(content, dict):
        return "axis" in content
    shaped = isinstance(content, torch.Tensor) and tuple(content.shape) == (model.n_layers, model.d_model)
    return shaped and "axis" in file.stem


def read(content: Any, file: Path, model: Model) -> Rows:
    """The axis; row l is our layer l.

    Raises:
        PersonaProbeError: for another shape, or a role's mean activation, which is not a difference.
    """
    left_out, about = [], {"points_to": "the default assistant, away from role-play"}
    if isinstance(content, dict):
        if "axis" not in content and {"vector", "role"} <= set(content):
            raise PersonaProbeError(
                f"{file}: is the mean activation of role {content['role']!r}, not a direction; subtract the "
                "default's, or read the axis"
            )
        if "axis" not in content:
            keys = ", ".join(map(repr, content))
            raise PersonaProbeError(f"{file}: has no 'axis'; a dict of the axis pipeline has one, this has {keys}")
        left_out = [f"{key}: not part of the axis" for key in content if key not in ("axis", "n_default", "n_roles")]
        about |= {key: content[key] for key in ("n_default", "n_roles") if isinstance(content.get(key), int)}
        content = content["axis"]
    axes = "(layers, d_model), without the embedding"
    array = array_of(content, file, "an assistant axis", (model.n_layers, model.d_model), axes)
    convention = "row l is the output of block l, counted from 0: our layer l"
    return Rows(array, tuple(range(model.n_layers)), convention, left_out, about)
