"""Token embeddings in place of activations: a baseline that sees only the words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import repeat

from persona_probe.activations.activations import Activations, identity
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import check_span
from persona_probe.errors import check_types
from persona_probe.models.model import Model


def embed(model: Model, dialogues: Sequence[Dialogue], span: str = "response") -> Activations:
    """The mean input embedding over a span, repeated at every layer: a bag of tokens in the residual stream's basis.

    Args:
        model: the model whose embeddings are used.
        dialogues: what is embedded.
        span: which tokens.

    Returns:
        Activations ``(dialogue, layer, d_model)`` in which all layers are equal; ``source["reduce"]`` is
        ``"mean embedding"``.

    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> talk = [{"role": "user", "content": "How do I handle the fever?"}, {"role": "assistant", "content": "Rest."}]
    >>> embedded = pp.activations.embed(model, [pp.Dialogue.from_messages(talk)])
    >>> embedded.values.shape, bool((embedded.at(0) == embedded.at(4)).all())
    ((1, 5, 160), True)
    """
    check_types(model=(model, Model))
    kind = check_span(span)
    encoded = model.encode(dialogues)
    weights: Any = model.plain.get_input_embeddings().weight
    means = []
    with torch.inference_mode():
        for item in encoded:
            ids = torch.tensor(item.input_ids[item.span(kind)], device=weights.device)
            means.append(weights[ids].float().mean(dim=0).cpu().numpy())
    values = repeat(np.stack(means), "dialogue d_model -> dialogue layer d_model", layer=model.n_layers)
    table = pd.DataFrame([identity(item.dialogue) for item in encoded])
    return Activations(
        values, table, tuple(range(model.n_layers)), {"model": model.name, "span": span, "reduce": "mean embedding"}
    )
