"""nnsight 0.8: the vector is added inside the trace of `generate`, at every step."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

import persona_probe as pp
from benchmarks.prompts import Prompts
from persona_probe.models.twin import structural_twin


def make(model: pp.Model, prompts: Prompts, vector: Tensor, layer: int) -> Callable[[], Tensor]:
    import nnsight

    # The same weights in another module tree; without device= they would be moved to a GPU if there is one.
    twin = structural_twin(model.hf)
    wrapped = nnsight.TransformersModel(twin, task="text-generation", tokenizer=model.tokenizer, device=model.device)
    block = wrapped.model.layers[layer]

    def run() -> Tensor:
        with wrapped.generate(prompts.given(), **prompts.settings()) as tracer:
            for _ in tracer.iter[: prompts.new_tokens]:
                block.output = block.output + vector
            ids = tracer.result.save()
        return ids[:, prompts.width :]

    return run
