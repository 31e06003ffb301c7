"""TransformerLens 3's `TransformerBridge.generate` with its KV cache, plain or with a hook that adds the vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import persona_probe as pp
from benchmarks.prompts import Prompts


def make_plain(model: pp.Model, prompts: Prompts) -> Callable[[], Tensor]:
    bridge = model.bridge

    def run() -> Tensor:
        with torch.inference_mode():
            ids: Any = bridge.generate(
                prompts.ids,
                attention_mask=prompts.mask,
                max_new_tokens=prompts.new_tokens,
                stop_at_eos=False,
                do_sample=False,
                use_past_kv_cache=True,
                return_type="tokens",
                verbose=False,
            )
        return ids[:, prompts.width :]

    return run


def make(model: pp.Model, prompts: Prompts, vector: Tensor, layer: int) -> Callable[[], Tensor]:
    bridge, generate = model.bridge, make_plain(model, prompts)

    def add(hidden: Tensor, hook: object) -> Tensor:  # noqa: ARG001  TransformerLens passes it by this name
        return hidden + vector

    def run() -> Tensor:
        with bridge.hooks(fwd_hooks=[(f"blocks.{layer}.hook_out", add)]):
            return generate()

    return run
