"""Questions as one batch of ids, padded on the left, and the settings with which all answers are equally long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

import persona_probe as pp


@dataclass(frozen=True)
class Prompts:
    """Prompts, padded on the left.

    Attributes:
        dialogues: the dialogues from which they were made, without answers.
        ids, mask: the inputs of the model, (row, position).
        new_tokens: the number of tokens of each answer.
        padding: the padding token.
    """

    dialogues: list[pp.Dialogue]
    ids: Tensor
    mask: Tensor
    new_tokens: int
    padding: int

    @property
    def width(self) -> int:
        return self.ids.shape[1]

    def given(self) -> dict[str, Tensor]:
        return {"input_ids": self.ids, "attention_mask": self.mask}

    def settings(self) -> dict[str, Any]:
        """Settings of Hugging Face's `generate`: greedy, and exactly this many tokens."""
        return {
            "min_new_tokens": self.new_tokens,
            "max_new_tokens": self.new_tokens,
            "do_sample": False,
            "pad_token_id": self.padding,
        }


def ask(model: pp.Model, dialogues: Sequence[pp.Dialogue], new_tokens: int) -> Prompts:
    asked = [dialogue.without_answer() for dialogue in dialogues]
    ids = [list(encoded.input_ids) for encoded in model.encode(asked)]
    padded = model.tokenizer.pad({"input_ids": ids}, return_tensors="pt", padding_side="left").to(model.device)
    return Prompts(asked, padded["input_ids"], padded["attention_mask"], new_tokens, model.tokenizer.pad_token_id)
