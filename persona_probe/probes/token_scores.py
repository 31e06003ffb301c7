"""A probe's score of every token of finished dialogues."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.activations.capture import capture
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning
from persona_probe.models.model import Model
from persona_probe.probes.layer_probes import LayerProbes


def token_scores(
    probes: LayerProbes, model: Model, dialogues: Sequence[Dialogue], layer: int, *, span: str = "all"
) -> pd.DataFrame:
    """The score of every token of a span.

    Args:
        probes: of that model's residual stream.
        model: which model reads.
        dialogues: what it reads.
        layer: whose probe.
        span: which tokens (`persona_probe.dialogue.rendering.SPANS`).

    Returns:
        One row a token: ``dialogue`` (row number), ``position`` (from 0), ``token_id``, ``token``, ``part``
        (``prompt``, with the assistant header; ``response``; or ``end``, what the template writes after it) and
        ``score``.

    Raises:
        PersonaProbeError: as `persona_probe.capture`, or if there is no probe of ``layer`` for this model.
    """
    probe_of(probes, model, layer)
    read = capture(model, dialogues, span, "tokens", layer)
    encoded = model.template.encode_all(dialogues)
    row, position = read.table["dialogue"].to_numpy(), read.table["position"].to_numpy()
    begins = np.array([item.prompt_length for item in encoded])[row]
    ends = np.array([item.response_end for item in encoded])[row]
    part = np.select([position < begins, position < ends], ["prompt", "response"], "end")
    table = read.table[["dialogue", "position", "token_id", "token"]]
    return table.assign(part=part, score=probes.decision_function(read)[:, 0])


def probe_of(probes: LayerProbes, model: Model, layer: int) -> tuple[Float[Tensor, "... d_model"], float]:
    """Weights (float32) and intercept of one layer, for ``model``; an unrelated model is a warning.

    Raises:
        PersonaProbeError: if there is no probe of ``layer``, or the model has another width.
    """
    weights, intercept = probes.at(layer)
    if probes.d_model != model.d_model:
        raise PersonaProbeError(
            f"the probes have d_model={probes.d_model}, {model.name} has {model.d_model}: they are another model's"
        )
    family = set(probes.card_["family"])
    if family and not family & {model.fingerprint(), *model.ancestors}:
        warnings.warn(
            f"the probes were trained on activations of {probes.card_.get('model')}, and {model.name} is not known to "
            "be made from it, or from what it was made from: scores mean something only if both share a residual basis",
            PersonaProbeWarning,
            stacklevel=4,
        )
    return torch.from_numpy(weights).float(), intercept
