"""Which tokens an SAE is shown: those of a span, without the beginning of sequence and attention sinks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona_probe.activations.reductions import Batch
from persona_probe.activations.sinks import SinkFilter, without_sinks
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.rendering import Encoded, check_span
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model


def encode_alike(
    models: Sequence[Model], dialogues: Sequence[Dialogue], span: str
) -> tuple[list[Encoded], list[slice]]:
    """The tokens that all ``models`` read, and where the span lies in them.

    Raises:
        PersonaProbeError: if there is no dialogue, a span is empty, or a model would read other tokens.
    """
    where = check_span(span)
    encoded = models[0].template.encode_all(dialogues)
    for model in models[1:]:
        if model.template is models[0].template:
            continue
        for item in encoded:
            if model.template.encode(item.dialogue) != item:
                raise PersonaProbeError(
                    f"dialogue {item.dialogue.name}: {model.name} makes other tokens of it than {models[0].name}; load "
                    "both with the same chat_template="
                )
    return encoded, [item.span(where) for item in encoded]


class KeptTokens:
    """The rule for one pass; a span of nothing but such tokens stays whole."""

    def __init__(self, model: Model, sinks: SinkFilter | None) -> None:
        self._begin: int | None = model.tokenizer.bos_token_id
        self.sinks = sinks

    def mask(
        self, layer: int, hidden: Float[Tensor, "batch position d_model"], batch: Batch
    ) -> Bool[Tensor, "batch position"]:
        """Which tokens of the batch are shown."""
        inside = batch.inside.to(hidden.device)
        if self._begin is not None:
            begins = torch.zeros_like(inside)
            begins[:, 0] = batch.ids[:, 0].to(hidden.device) == self._begin
            inside = without_sinks(inside, begins)
        if self.sinks is None:
            return inside
        return self.sinks.leave_out(layer, hidden, inside, batch.real.to(hidden.device), batch.rows)

    def commit(self, rows: list[int]) -> None:
        """A batch went through."""
        if self.sinks is not None:
            self.sinks.commit(rows)
