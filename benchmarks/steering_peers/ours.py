"""What is measured: Hugging Face's `generate` inside `pp.steer`, including the time to open the context."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

import persona_probe as pp
from benchmarks.prompts import Prompts
from benchmarks.steering_peers import plain


def make(
    model: pp.Model, prompts: Prompts, what: pp.steering.Intervention | Sequence[pp.steering.Intervention | None]
) -> Callable[[], Tensor]:
    generate = plain.make(model, prompts)

    def run() -> Tensor:
        with pp.steer(model, what):
            return generate()

    return run
