"""The limit: Hugging Face's `generate`, unsteered."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

import persona_probe as pp
from benchmarks.prompts import Prompts


def make(model: pp.Model, prompts: Prompts) -> Callable[[], Tensor]:
    def run() -> Tensor:
        ids: Tensor = model.hf.generate(**prompts.given(), **prompts.settings())
        return ids[:, prompts.width :]

    return run
