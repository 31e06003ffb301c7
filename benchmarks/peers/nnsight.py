"""nnsight 0.8: means that are saved inside the trace, on the same batches as ours; the head is not run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import persona_probe as pp
from benchmarks.prepared import in_order, prepare
from persona_probe.models.twin import structural_twin


def make(model: pp.Model, dialogues: Sequence[pp.Dialogue]) -> Callable[[], Tensor]:
    import nnsight

    wrapped = nnsight.NNsight(structural_twin(model.hf))  # the same weights in another module tree
    prepared = prepare(model, dialogues)

    def run() -> Tensor:
        means = []
        with torch.inference_mode():
            for batch in prepared:
                with wrapped.trace(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False) as tracer:
                    read = nnsight.save([])
                    for block in wrapped.model.layers:
                        read.append(batch.means(block.output))
                    tracer.stop()
                means.append(torch.stack(read, dim=1).cpu())
        return in_order(prepared, means)

    return run
