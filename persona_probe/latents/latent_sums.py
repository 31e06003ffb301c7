"""What is kept of latent activations while they stream by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.activations.reductions import Batch, Reduction
from persona_probe.dialogue.rendering import Encoded
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.fit import RunningFit
from persona_probe.latents.kept_tokens import KeptTokens
from persona_probe.latents.sae import Sae
from persona_probe.latents.top_examples import RunningTop

FIT_SAMPLE = 4_096
"""Tokens on which the reconstruction is checked in passing."""


class LatentReduction(Reduction):
    """Encodes the kept tokens of a batch, a few at a time."""

    def __init__(self, sae: Sae, encoded: Sequence[Encoded], kept: KeptTokens) -> None:
        super().__init__([sae.layer])
        self.sae, self.encoded, self.kept = sae, encoded, kept

    def tokens(
        self, layer: int, hidden: Float[Tensor, "batch position d_model"], batch: Batch
    ) -> tuple[Float[Tensor, "token d_model"], Int[Tensor, "token 2"]]:
        """The kept tokens, and the row in the batch and the position of each.

        Raises:
            PersonaProbeError: if one is not finite, naming its dialogue.
        """
        mask = self.kept.mask(layer, hidden, batch)
        tokens, places = hidden[mask], mask.nonzero()
        wrong = ~tokens.isfinite().all(dim=1)
        if bool(wrong.any()):
            row, position = places[wrong][0].tolist()
            raise PersonaProbeError(
                f"dialogue {self.encoded[batch.rows[row]].dialogue.name}: the activations of layer {layer} at token "
                f"{position} are not finite (NaN or infinite), so no latent can be read; load the model in float32 or "
                "bfloat16, and look for broken weights"
            )
        return tokens, places

    def chunks(self, tokens: Float[Tensor, "token d_model"]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Start, tokens and activations ``(token, latent)`` of one chunk after the other."""
        for start in range(0, len(tokens), self.sae.tokens_at_once):
            part = tokens[start : start + self.sae.tokens_at_once]
            yield start, part, self.sae.encode(part)


class LatentSums(LatentReduction):
    """Sums of dialogue means by group, squares, firing and top examples of every latent."""

    def __init__(
        self,
        sae: Sae,
        groups: Int[np.ndarray, "... dialogue"],
        encoded: Sequence[Encoded],
        kept: KeptTokens,
        examples: int,
        device: torch.device,
    ) -> None:
        super().__init__(sae, encoded, kept)
        self.groups = torch.as_tensor(groups, dtype=torch.int64, device=device)
        n_groups = int(groups.max()) + 1
        self.sums, self.firing = (torch.zeros(n_groups, sae.width, device=device) for _ in range(2))
        self.squares = torch.zeros(sae.width, device=device)
        self.top = RunningTop(sae.width, examples, device)
        self.fit = RunningFit()
        self.n_tokens = 0
        self._sampled: list[tuple[Tensor, Tensor, int]] = []

    def begin(self) -> None:
        """Forget what an unfinished batch left."""
        super().begin()
        self._sampled = []

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Keep what is active: token, latent, activation."""
        tokens, places = self.tokens(layer, hidden, batch)
        wanted = FIT_SAMPLE - self.fit.tokens
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for start, part, acts in self.chunks(tokens):
            token, latent = acts.nonzero(as_tuple=True)
            found.append((token + start, latent, acts[token, latent].float()))
            if start < wanted:
                self._sampled.append((part, self.sae.decode(acts), len(token)))
        self._pending[layer] = (places, *(torch.cat(column) for column in zip(*found, strict=True)))

    def commit(self, batch: Batch) -> None:
        """Bring the batch's dialogues in."""
        (entry,) = self._pending.values()
        places, token, latent, value = (tensor.to(self.sums.device) for tensor in entry)
        width = self.sae.width
        # Of every dialogue and latent that meet: the sum, the count, the largest and where it is.
        pairs, pair = torch.unique(places[token, 0] * width + latent, return_inverse=True)
        row, latents = pairs // width, pairs % width
        zeros = torch.zeros(len(pairs), device=value.device)
        lengths = torch.bincount(places[:, 0], minlength=len(batch.rows)).float()[row]
        mean = zeros.index_add(0, pair, value) / lengths
        share = zeros.index_add(0, pair, torch.ones_like(value)) / lengths
        largest = zeros.scatter_reduce(0, pair, value, "amax", include_self=False)
        position = places[token, 1].masked_fill(value < largest[pair], places.max() + 1)
        first = torch.full_like(pairs, int(places.max()) + 1).scatter_reduce(0, pair, position, "amin")
        dialogues = torch.as_tensor(batch.rows, device=row.device)[row]
        cell = self.groups[dialogues] * width + latents
        self.sums.view(-1).index_add_(0, cell, mean)
        self.firing.view(-1).index_add_(0, cell, share)
        self.squares.index_add_(0, latents, mean.square())
        self.top.update(latents, largest, dialogues, first)
        self.n_tokens += len(places)
        for part, reconstructed, active in self._sampled:
            self.fit.add(part, reconstructed, active)
        self.kept.commit(batch.rows)
