"""The usual research script: the whole model, one dialogue at a time, with all hidden states until the mean is taken.

Hugging Face returns the last layer after the final norm, so that layer is not the same quantity as ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import persona_probe as pp


def make(model: pp.Model, dialogues: Sequence[pp.Dialogue]) -> Callable[[], Tensor]:
    hf, tokenizer = model.hf, model.tokenizer

    def mean(dialogue: pp.Dialogue) -> Tensor:
        messages = dialogue.as_messages()
        ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        with torch.no_grad():
            output = hf(input_ids=ids.to(hf.device), output_hidden_states=True)
        response = slice(len(prompt), -1)  # the last token ends the turn
        return torch.stack([hidden[0, response].float().mean(dim=0).cpu() for hidden in output.hidden_states[1:]])

    return lambda: torch.stack([mean(dialogue) for dialogue in dialogues])
