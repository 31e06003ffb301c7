"""Whether all say what they should; a wrong answer is not worth timing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

import persona_probe as pp

AGREEMENT = 0.95
LOW_PRECISION_AGREEMENT = 0.5
SAME = {"plain_bridge": "plain", "bridge": "one_layer", "nnsight": "one_layer"}


def check(model: pp.Model, said: Mapping[str, Tensor]) -> dict[str, float]:
    """Shares of new tokens alike, each peer's and those of the variant of ours that it should say."""
    for name, ids in said.items():
        if ids.shape != said["plain"].shape:
            raise RuntimeError(f"{name} makes {tuple(ids.shape)} new tokens, plain {tuple(said['plain'].shape)}")
        if name not in ("plain", "plain_bridge") and torch.equal(ids, said["plain"]):
            raise RuntimeError(f"{name} does not change what is said")
    full = model.hf.dtype == torch.float32
    agreement = {}
    for name, same in SAME.items():
        if name not in said:
            continue
        alike = (said[name] == said[same]).float()
        agreement[name] = float(alike.mean() if full else alike[:, 0].mean())
        if agreement[name] < (least := AGREEMENT if full else LOW_PRECISION_AGREEMENT):
            raise RuntimeError(f"{name} says something else than {same}: {agreement[name]:.0%} alike, not {least:.0%}")
    return agreement
