"""Which tokens an SAE reads: those of a span, without the beginning of sequence and attention sinks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.activations.reductions import Batch
from persona_probe.activations.sinks import SINK_RATIO, SinkFilter, without_sinks
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded, check_span
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model


def encode_alike(
    models: Sequence[Model], dialogues: Sequence[Dialogue], span: str
) -> tuple[list[Encoded], list[slice]]:
    """The tokens that all ``models`` read, and the position of the span in them.

    Raises:
        PersonaProbeError: if there is no dialogue, a span is empty, or a model would read other tokens.
    """
    where = check_span(span)
    encoded = models[0].encode(dialogues)
    for model in models[1:]:
        if model.template is models[0].template:
            continue
        for item in encoded:
            if model.template.encode(item.dialogue) != item:
                raise PersonaProbeError(
                    f"dialogue {item.dialogue.name}: {model.name} turns it into other tokens than {models[0].name}; "
                    "load both with the same chat_template="
                )
    return encoded, [item.span(where) for item in encoded]


class KeptTokens:
    """The rule for one pass: which tokens are kept; a span that would lose all its tokens stays whole."""

    def __init__(self, model: Model, sinks: SinkFilter | None) -> None:
        self._begin: int | None = model.tokenizer.bos_token_id
        self.sinks = sinks

    def mask(
        self, layer: int, hidden: Float[Tensor, "batch position d_model"], batch: Batch
    ) -> Bool[Tensor, "batch position"]:
        """Which tokens of the batch are kept."""
        inside = batch.inside.to(hidden.device)
        if self._begin is not None:
            begins = torch.zeros_like(inside)
            begins[:, 0] = batch.ids[:, 0].to(hidden.device) == self._begin
            inside = without_sinks(inside, begins)
        if self.sinks is None:
            return inside
        return self.sinks.leave_out(layer, hidden, inside, batch.real.to(hidden.device), batch.rows)

    def tokens(
        self,
        layer: int,
        hidden: Float[Tensor, "batch position d_model"],
        batch: Batch,
        encoded: Sequence[Encoded],
    ) -> tuple[Float[Tensor, "token d_model"], Int[Tensor, "token 2"]]:
        """The kept tokens, and the row in the batch and the position of each.

        Raises:
            PersonaProbeError: if one is not finite; its dialogue among ``encoded`` is named.
        """
        mask = self.mask(layer, hidden, batch)
        tokens, places = hidden[mask], mask.nonzero()
        wrong = ~tokens.isfinite().all(dim=1)
        if bool(wrong.any()):
            row, position = places[wrong][0].tolist()
            raise PersonaProbeError(
                f"dialogue {encoded[batch.rows[row]].dialogue.name}: the activations of layer {layer} at token "
                f"{position} are not finite (NaN or infinite), so no SAE can read them; load the model in float32 or "
                "bfloat16, and look for broken weights"
            )
        return tokens, places

    def commit(self, rows: list[int]) -> None:
        """Record that a batch has been read."""
        if self.sinks is not None:
            self.sinks.commit(rows)


def kept_alike(
    models: Sequence[Model], n_dialogues: int, layer: int, sink_ratio: float | None = SINK_RATIO
) -> list[KeptTokens]:
    """The rule for each of ``models``, which read the same dialogues in one pass: sinks are those of the first.

    Args:
        models: in the order of the pass.
        n_dialogues: how many they read.
        layer: whose output is read.
        sink_ratio: above which ratio a token is an attention sink; sinks are kept if this is None, or if the first
            model is being steered: compared with the steered tokens the others would look small, and the steered tokens
            would be taken for sinks.
    """
    if sink_ratio is None or models[0].steered:
        return [KeptTokens(model, None) for model in models]
    first = SinkFilter(sink_ratio, n_dialogues, [layer], remember=True)
    others = (SinkFilter(sink_ratio, n_dialogues, [layer], follow=first.record) for _ in models[1:])
    return [KeptTokens(model, sinks) for model, sinks in zip(models, [first, *others], strict=True)]
