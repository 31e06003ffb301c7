"""Checks that all tools give the tokens that they should: a wrong answer is not worth timing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

import persona_probe as pp

AGREEMENT = 0.95
LOW_PRECISION_AGREEMENT = 0.5
SAME = {"plain_bridge": "plain", "bridge": "one_layer", "nnsight": "one_layer"}


def check(model: pp.Model, answers: Mapping[str, Tensor]) -> dict[str, float]:
    """The share of new tokens in which each peer agrees with the variant of ours that should give the same."""
    for name, ids in answers.items():
        if ids.shape != answers["plain"].shape:
            raise RuntimeError(f"{name} makes {tuple(ids.shape)} new tokens, plain {tuple(answers['plain'].shape)}")
        if name not in ("plain", "plain_bridge") and torch.equal(ids, answers["plain"]):
            raise RuntimeError(f"{name} does not change the answers")
    full = model.hf.dtype == torch.float32
    agreement = {}
    for name, same in SAME.items():
        if name not in answers:
            continue
        alike = (answers[name] == answers[same]).float()
        agreement[name] = float(alike.mean() if full else alike[:, 0].mean())
        if agreement[name] < (least := AGREEMENT if full else LOW_PRECISION_AGREEMENT):
            raise RuntimeError(
                f"{name} and {same} differ: {agreement[name]:.0%} of tokens are the same, not {least:.0%}"
            )
    return agreement
