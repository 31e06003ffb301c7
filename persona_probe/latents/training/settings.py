"""The settings with which an SAE is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from persona_probe.errors import NUMBER, PersonaProbeError, check_types
from persona_probe.models.stream.layers import is_whole

SaeKind = Literal["batchtopk", "topk", "jumprelu"]


@dataclass(frozen=True)
class SaeSettings:
    """How an SAE is trained.

    Attributes:
        kind: ``batchtopk`` (Bussmann et al. 2024, "BatchTopK sparse autoencoders"), ``topk`` (Gao et al. 2024,
            "Scaling and evaluating sparse autoencoders"), or ``jumprelu`` (Rajamanoharan et al. 2024, "Jumping ahead"),
            here with a quadratic penalty around ``k``.
        width: how many latents; default eight times d_model, or that of the SAE to start from.
        k: how many latents are active at a token, on average (``topk``: exactly).
        tokens: how many tokens to train on; texts are read again if they have fewer.
        batch: tokens per step.
        learning_rate: of Adam, at activations scaled to a mean norm of sqrt(d_model); falls to 0 over the last quarter.
        aux_coefficient: weight of the loss that revives dead latents (``batchtopk``, ``topk``).
        dead_after: steps without firing after which a latent counts as dead in training.
        sparsity_coefficient: weight of the penalty (``jumprelu``).
        seed: of the weights, the order of tokens and the held-out texts.
    """

    kind: SaeKind = "batchtopk"
    width: int | None = None
    k: int = 16
    tokens: int = 2_000_000
    batch: int = 1024
    learning_rate: float = 1e-3
    aux_coefficient: float = 1.0
    dead_after: int = 200
    sparsity_coefficient: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise if a setting is out of range."""
        check_types(
            kind=(self.kind, str),
            learning_rate=(self.learning_rate, NUMBER),
            aux_coefficient=(self.aux_coefficient, NUMBER),
            sparsity_coefficient=(self.sparsity_coefficient, NUMBER),
        )
        if self.kind not in get_args(SaeKind):
            raise PersonaProbeError(f"kind is {self.kind!r}; choose one of {', '.join(get_args(SaeKind))}")
        for name in ("width", "k", "tokens", "batch", "dead_after"):
            value = getattr(self, name)
            if name == "width" and value is None:
                continue
            if not is_whole(value) or value < 1:
                raise PersonaProbeError(f"{name} is {value!r}; it must be a whole number, at least 1")
            object.__setattr__(self, name, int(value))
        if not is_whole(self.seed):
            raise PersonaProbeError(f"seed is {self.seed!r}; it must be a whole number")
        object.__setattr__(self, "seed", int(self.seed))
        if self.width is not None and self.k > self.width:
            raise PersonaProbeError(
                f"k is {self.k}, more than the SAE's {self.width} latents; k is how many are active at a token"
            )
        if self.tokens < self.batch:
            raise PersonaProbeError(f"tokens is {self.tokens}, less than one batch of {self.batch}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise PersonaProbeError(f"learning_rate is {self.learning_rate}; it must be positive")
        for name in ("aux_coefficient", "sparsity_coefficient"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise PersonaProbeError(f"{name} is {getattr(self, name)}; it must not be negative")
