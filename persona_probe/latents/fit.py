"""How well an SAE reconstructs the activations of a model."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.latents.sae import LatentWarning, Sae

BAD, WORTHLESS = 0.4, 0.9
"""Fractions of variance unexplained. Published SAEs leave 5 to 35 % on the texts and model of their training."""


@dataclass(frozen=True)
class Fit:
    """How well some tokens are reconstructed.

    Attributes:
        fvu: the fraction of variance unexplained: summed squared errors over summed squared distances from the mean.
        l0: the mean number of latents that are active at a token.
        tokens: the number of tokens.
    """

    fvu: float
    l0: float
    tokens: int

    def check(self, sae: Sae, model: str, *, allow_unrelated: bool = False) -> None:
        """Warn if the SAE reconstructs the model's activations badly, and raise if it does not reconstruct them at all.

        Raises:
            PersonaProbeError: if more than 90 % of the variance is unexplained, unless ``allow_unrelated``.
        """
        if not self.fvu > BAD:  # NaN if the tokens do not vary
            return
        message = (
            f"the SAE {sae.name} leaves {self.fvu:.0%} of the variance of {model}'s layer {sae.layer} unexplained on "
            "these texts: it does not fit this model (another layer, another scale, or trained on other activations)"
        )
        if self.fvu > WORTHLESS and not allow_unrelated:
            raise PersonaProbeError(
                f"{message}; its latents mean nothing here. Use another SAE, or allow_unrelated=True to continue anyway"
            )
        warnings.warn(message, LatentWarning, stacklevel=3)


class RunningFit:
    """A `Fit` that is summed batch by batch, in float64."""

    def __init__(self) -> None:
        self.tokens = self._active = 0
        self._error = self._squares = 0.0
        self._sum: Tensor | float = 0.0

    def add(
        self,
        hidden: Float[Tensor, "token d_model"],
        reconstructed: Float[Tensor, "token d_model"],
        active: int,
    ) -> None:
        """Add some tokens, at which ``active`` latents were active in all."""
        wide = hidden.cpu().double()  # some devices have no float64
        self._error += float((wide - reconstructed.cpu().double()).square().sum())
        self._squares += float(wide.square().sum())
        self._sum = self._sum + wide.sum(dim=0)
        self._active += active
        self.tokens += len(hidden)

    def result(self) -> Fit:
        """The fit of all tokens so far; ``fvu`` is NaN if they do not vary."""
        if not isinstance(self._sum, Tensor):
            return Fit(math.nan, math.nan, 0)
        variance = self._squares - float(torch.dot(self._sum, self._sum)) / self.tokens
        return Fit(self._error / variance if variance > 0 else math.nan, self._active / self.tokens, self.tokens)
