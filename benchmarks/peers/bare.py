"""The limit: the backbone alone, on the same batches as ours, tokenized and padded beforehand. Nothing is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

import persona_probe as pp
from benchmarks.prepared import prepare


def make(model: pp.Model, dialogues: Sequence[pp.Dialogue]) -> Callable[[], None]:
    prepared = prepare(model, dialogues)

    def run() -> None:
        with torch.inference_mode():
            for batch in prepared:
                model.stream.backbone(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)

    return run
