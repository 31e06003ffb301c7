"""TransformerLens 3's TransformerBridge: `run_with_cache` of the blocks' outputs, on the same batches as ours.

Only the blocks' outputs are cached, and logits are computed for one position only, as an experienced user would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import persona_probe as pp
from benchmarks.prepared import in_order, prepare


def make(model: pp.Model, dialogues: Sequence[pp.Dialogue]) -> Callable[[], Tensor]:
    bridge, prepared = model.bridge, prepare(model, dialogues)
    names = [f"blocks.{layer}.hook_out" for layer in range(model.n_layers)]

    def run() -> Tensor:
        means = []
        with torch.inference_mode():
            for batch in prepared:
                _, cache = bridge.run_with_cache(
                    batch.ids,
                    attention_mask=batch.mask,
                    names_filter=names,
                    return_type=None,
                    use_cache=False,
                    logits_to_keep=1,
                )
                means.append(torch.stack([batch.means(cache[name]) for name in names], dim=1).cpu())
        return in_order(prepared, means)

    return run
