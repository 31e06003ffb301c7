"""What is measured: `pp.capture`, from dialogues to means, including rendering and tokenizing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import persona_probe as pp


def make(model: pp.Model, dialogues: Sequence[pp.Dialogue]) -> Callable[[], Tensor]:
    return lambda: torch.from_numpy(pp.capture(model, dialogues, span="response", reduce="mean").values)
