"""What the bridge, generation and the checks need of a model, so that `Model` can import them without a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from persona_probe.models.stream.boundary import HasBoundary

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from transformers import PreTrainedModel

    from persona_probe.dialogue.dialogue import Dialogue
    from persona_probe.dialogue.encoding import Encoded
    from persona_probe.dialogue.rendering import ChatTemplate
    from persona_probe.models.stream.residual_stream import ResidualStream


class LanguageModel(HasBoundary, Protocol):
    """A causal language model with its chat template and its residual stream (`persona_probe.models.model.Model`).

    Attributes:
        hf: the Hugging Face model (a ``PeftModel`` when an adapter is live).
        template: its chat template.
        name: what errors call it.
        stream: the hooks on its residual stream.
    """

    hf: Any
    template: ChatTemplate
    name: str
    stream: ResidualStream

    @property
    def plain(self) -> PreTrainedModel:
        """The transformers model inside ``hf``."""
        ...

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        ...

    def encode(self, dialogues: Sequence[Dialogue], *, new_tokens: int = 0) -> list[Encoded]:
        """The dialogues as tokens, checked before the model reads any of them."""
        ...

    @property
    def device(self) -> torch.device:
        """Where input ids go."""
        ...
