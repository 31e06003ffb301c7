"""A probe's score of every token of finished dialogues."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.activations.capturing import capture
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.probes.layer_probes import LayerProbes


def token_scores(
    model: Model,
    probes: LayerProbes,
    dialogues: Sequence[Dialogue],
    layer: int,
    *,
    span: str = "all",
    allow_unrelated: bool = False,
) -> pd.DataFrame:
    """The score of every token of a span.

    Args:
        model: which model reads.
        probes: of that model's residual stream.
        dialogues: what it reads.
        layer: whose probe.
        span: which tokens (`persona_probe.dialogue.rendering.SPANS`).
        allow_unrelated: warn instead of refusing an unrelated model.

    Returns:
        One row per token: ``dialogue`` (row number), ``position`` (from 0), ``token_id``, ``token``, ``part``
        (``prompt``, with the assistant header; ``response``; or ``end``, what the template writes after it) and
        ``score``.

    Raises:
        PersonaProbeError: as `persona_probe.capture`, or if there is no probe of ``layer`` for this model.
    """
    check_types(
        model=(model, Model), probes=(probes, LayerProbes), dialogues=(dialogues, [Dialogue]), layer=(layer, WHOLE)
    )
    probe_of(probes, model, layer, allow_unrelated)
    read = capture(model, dialogues, span, "tokens", layer)
    encoded = model.encode(dialogues)
    part = parts_of(encoded, read.table["dialogue"].to_numpy(), read.table["position"].to_numpy())
    table = read.table[["dialogue", "position", "token_id", "token"]]
    return table.assign(part=part, score=probes.decision_function(read, allow_unrelated=True)[:, 0])


def parts_of(
    encoded: Sequence[Encoded], row: Int[np.ndarray, "... token"], position: Int[np.ndarray, "... token"]
) -> np.ndarray:
    """``(token,)`` what each token is part of: ``prompt``, ``response`` or ``end``.

    Args:
        encoded: dialogues.
        row: the number of each token's dialogue.
        position: each token's position in its dialogue.
    """
    begins = np.array([item.prompt_length for item in encoded])[row]
    ends = np.array([item.response_end for item in encoded])[row]
    return np.select([position < begins, position < ends], ["prompt", "response"], "end")


def probe_of(
    probes: LayerProbes, model: Model, layer: int, allow_unrelated: bool
) -> tuple[Float[Tensor, "... d_model"], float]:
    """Weights (float32) and intercept of one layer, for ``model``.

    Raises:
        PersonaProbeError: if there is no probe of ``layer``, or ``model`` has another width or is unrelated to the
            probes' (with ``allow_unrelated``, that is a warning).
    """
    weights, intercept = probes.at(layer)
    if probes.d_model != model.d_model:
        raise PersonaProbeError(
            f"the probes have d_model={probes.d_model}, {model.name} has {model.d_model}: they are another model's"
        )
    fingerprint = model.fingerprint()
    probes.check_family(model.name, fingerprint, sorted({fingerprint, *model.ancestors}), allow_unrelated)
    return torch.from_numpy(weights).float(), intercept
