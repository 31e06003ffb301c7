"""Capping configurations of the assistant axis: ``capping_config.pt``.

Lu et al. 2026, arXiv:2601.10387; repository safety-research/assistant-axis, ``assistant_axis/steering.py``
(``load_capping_config``, ``build_capping_steerer``): a dict of ``vectors`` (name -> ``layer``, ``vector`` (d_model,))
and ``experiments`` (``id``, ``interventions`` with ``vector`` and ``cap``). Projections on ``vector / ||vector||`` at
the output of block ``layer`` that lie *above* ``cap`` are brought down to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from persona_probe.directions.formats.assembly import Rows, array_of, described
from persona_probe.directions.formats.assistant_axis import ABOUT as _AXIS
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model

ABOUT = {**_AXIS, "format": "assistant-axis-capping"}


def matches(content: Any, _file: Path, _model: Model) -> bool:
    """Whether it is a dict of vectors and experiments."""
    return isinstance(content, dict) and {"vectors", "experiments"} <= set(content)


def read(content: Any, file: Path, model: Model, *, experiment: str | None = None) -> Rows:
    """The vectors of one experiment; its caps, in residual-stream units, go into the card as ``caps`` (one per layer).

    Raises:
        PersonaProbeError: if the file has another format, the experiment is not named or unknown, two of its vectors
            act at the same layer, or a vector does not fit the model.
    """
    if not matches(content, file, model):
        raise PersonaProbeError(
            f"{file}: a capping configuration has 'vectors' and 'experiments', this is a {described(content)}"
        )
    try:
        experiments = {str(entry["id"]): entry["interventions"] for entry in content["experiments"]}
        if experiment not in experiments:
            raise PersonaProbeError(
                f"{file}: holds {len(experiments)} experiments; give experiment= one of "
                f"{', '.join(list(experiments)[:8])}{', ...' if len(experiments) > 8 else ''} (given: {experiment!r})"
            )
        capped = [entry for entry in experiments[experiment] if "cap" in entry]
        parts = [(content["vectors"][entry["vector"]], float(entry["cap"])) for entry in capped]
        placed = sorted(((int(part["layer"]), part["vector"], cap) for part, cap in parts), key=lambda part: part[0])
    except (KeyError, TypeError) as error:
        raise PersonaProbeError(
            f"{file}: is not a capping configuration as its repository writes it: {error!r}"
        ) from error
    layers = [layer for layer, _, _ in placed]
    if not layers or len(set(layers)) != len(layers) or not 0 <= layers[0] <= layers[-1] < model.n_layers:
        raise PersonaProbeError(
            f"{file}: {experiment} caps at layers {layers}; it must cap at one layer or more, each once, between 0 and "
            f"{model.n_layers - 1} for {model.name}"
        )
    arrays = [
        array_of(vector, file, f"the vector of layer {layer}", (model.d_model,), "(d_model,)")
        for layer, vector, _ in placed
    ]
    return Rows(
        np.stack(arrays),
        layers,
        "'layer' is the block at whose output the vector acts, counted from 0: our layer",
        [f"{len(experiments) - 1} other experiments"] if len(experiments) > 1 else [],
        {
            "experiment": experiment,
            "caps": [cap for _, _, cap in placed],
            "cap": "projections above it are lowered to it",
        },
    )
