"""The dialogues in which each latent is most active, kept while tokens stream by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class TopExamples:
    """For each latent, where it was most active: at most one token per dialogue, strongest first.

    Attributes:
        values: ``(latent, example)`` activations; 0 where there are fewer examples.
        dialogues: ``(latent, example)`` row numbers of the dialogues; -1 where there are fewer.
        positions: ``(latent, example)`` token positions in the whole dialogue; -1 where there are fewer.
    """

    values: Float[np.ndarray, "latent example"]
    dialogues: Int[np.ndarray, "latent example"]
    positions: Int[np.ndarray, "latent example"]

    def of(self, latent: int) -> list[tuple[int, int, float]]:
        """A latent's examples as (dialogue, position, activation)."""
        kept = np.flatnonzero(self.dialogues[latent] >= 0)
        columns = (self.dialogues[latent], self.positions[latent], self.values[latent])
        return [(int(columns[0][i]), int(columns[1][i]), float(columns[2][i])) for i in kept]


class RunningTop:
    """The strongest examples so far; memory is latents x examples."""

    def __init__(self, width: int, n: int, device: torch.device) -> None:
        self.n = n
        self._values = torch.zeros(width, n, device=device)
        self._dialogues = torch.full((width, n), -1, dtype=torch.int32, device=device)
        self._positions = torch.full((width, n), -1, dtype=torch.int32, device=device)

    def update(
        self,
        latents: Int[Tensor, "... entry"],
        values: Float[Tensor, "... entry"],
        dialogues: Int[Tensor, "... entry"],
        positions: Int[Tensor, "... entry"],
    ) -> None:
        """Add entries; each pair of a dialogue and a latent may occur only once, here and in earlier calls."""
        if not self.n:
            return
        better = values > self._values[latents, -1]
        latents, values = latents[better], values[better]
        if not len(latents):
            return
        order = torch.argsort(values, descending=True, stable=True)
        order = order[torch.argsort(latents[order], stable=True)]
        latents, values = latents[order], values[order]
        touched, counts = torch.unique_consecutive(latents, return_counts=True)
        firsts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        rank = torch.arange(len(latents), device=latents.device) - firsts
        kept = rank < self.n
        row = torch.repeat_interleave(torch.arange(len(touched), device=latents.device), counts)[kept]
        rank, source = rank[kept], order[kept]
        fresh = torch.zeros(len(touched), self.n, device=values.device)
        fresh[row, rank] = values[kept]
        best, places = torch.cat([self._values[touched], fresh], dim=1).topk(self.n, dim=1)
        self._values[touched] = best
        for held, given in ((self._dialogues, dialogues), (self._positions, positions)):
            new = torch.full((len(touched), self.n), -1, dtype=torch.int32, device=values.device)
            new[row, rank] = given[better][source].to(torch.int32)
            held[touched] = torch.cat([held[touched], new], dim=1).gather(1, places)

    def result(self) -> TopExamples:
        """The strongest examples of all."""
        return TopExamples(*(kept.cpu().numpy() for kept in (self._values, self._dialogues, self._positions)))
