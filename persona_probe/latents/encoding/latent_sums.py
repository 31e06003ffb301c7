"""Sums over latent activations, which are kept while the activations stream by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.activations.reductions import Batch, Reduction
from persona_probe.dialogue.encoding import Encoded
from persona_probe.latents.encoding.kept_tokens import KeptTokens
from persona_probe.latents.encoding.top_examples import RunningTop
from persona_probe.latents.fit import RunningFit
from persona_probe.latents.sae import Sae

FIT_SAMPLE = 4_096
"""Number of tokens on which the reconstruction is checked: the first that are read, so of the longest dialogues."""
_ENTRIES_AT_ONCE = 2**19
"""Active latents, summed over the dialogues that are added at once; sorting them takes tens of MB."""


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
            PersonaProbeError: if one is not finite; its dialogue is named.
        """
        return self.kept.tokens(layer, hidden, batch, self.encoded)

    def chunks(self, tokens: Float[Tensor, "token d_model"]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each chunk its start, its tokens and their activations ``(token, latent)``."""
        for start in range(0, len(tokens), self.sae.tokens_at_once):
            part = tokens[start : start + self.sae.tokens_at_once]
            yield start, part, self.sae.encode(part)


@dataclass
class _Active:
    """The latents that are active in some tokens of one dialogue, and how active they are.

    Attributes:
        latents: their numbers, ascending.
        total: summed activation.
        count: at how many tokens the latent is active.
        largest: the largest activation.
        position: the position of the first token with the largest activation.
    """

    latents: Int[Tensor, "... latent"]
    total: Float[Tensor, "... latent"]
    count: Float[Tensor, "... latent"]
    largest: Float[Tensor, "... latent"]
    position: Int[Tensor, "... latent"]

    @classmethod
    def of(cls, acts: Float[Tensor, "token latent"], positions: Int[Tensor, "... token"]) -> _Active:
        """The reduction of some tokens; only the columns of active latents are read twice."""
        latents = ((acts.amax(dim=0) != 0) | (acts.amin(dim=0) != 0)).nonzero()[:, 0]
        some = acts[:, latents].float()
        largest, where = some.max(dim=0)
        count = (some != 0).sum(dim=0).float()
        return cls(latents, some.sum(dim=0), count, largest, positions[where])

    def join(self, later: _Active) -> _Active:
        """These tokens and later tokens of the same dialogue together."""
        latents, place = torch.unique(torch.cat([self.latents, later.latents]), return_inverse=True)
        here, there = place.tensor_split([len(self.latents)])
        total, count = (
            torch.zeros(len(latents), device=latents.device).index_add_(0, here, early).index_add_(0, there, late)
            for early, late in ((self.total, later.total), (self.count, later.count))
        )
        largest = torch.full_like(total, -torch.inf).index_copy_(0, here, self.largest)
        position = torch.zeros_like(latents).index_copy_(0, here, self.position)
        higher = later.largest > largest[there]
        largest[there[higher]], position[there[higher]] = later.largest[higher], later.position[higher]
        return _Active(latents, total, count, largest, position)


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
        # A variance is a small difference of large numbers. MPS has no float64.
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.squares = torch.zeros(sae.width, dtype=wide, device=device)
        self.top = RunningTop(sae.width, examples, device)
        self.fit = RunningFit()
        self.n_tokens = 0
        self._sampled: list[tuple[Tensor, Tensor, int]] = []

    def begin(self) -> None:
        """Discard what an unfinished batch left."""
        super().begin()
        self._sampled = []

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Reduce each dialogue's tokens to what is active in them."""
        tokens, places = self.tokens(layer, hidden, batch)
        lengths = torch.bincount(places[:, 0], minlength=len(batch.rows)).tolist()
        ends = np.cumsum(lengths)
        wanted = FIT_SAMPLE - self.fit.tokens
        seen: list[_Active] = []
        for start, part, acts in self.chunks(tokens):
            stop = start + len(part)
            for row in range(int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop)) + 1):
                first, last = max(start, int(ends[row]) - lengths[row]), min(stop, int(ends[row]))
                active = _Active.of(acts[first - start : last - start], places[first:last, 1])
                if row < len(seen):  # it began in an earlier chunk
                    seen[row] = seen[row].join(active)
                else:
                    seen.append(active)
            if start < wanted:
                self._sampled.append((part, self.sae.decode(acts), int((acts != 0).sum())))
        self._pending[layer] = (seen, lengths)

    def commit(self, batch: Batch) -> None:
        """Add the batch's dialogues to the sums."""
        ((seen, lengths),) = self._pending.values()
        for some in _blocks(seen):
            self._add(batch.rows[some], seen[some], lengths[some])
        self.n_tokens += sum(lengths)
        for part, reconstructed, active in self._sampled:
            self.fit.add(part, reconstructed, active)
        self.kept.commit(batch.rows)

    def _add(self, rows: list[int], seen: list[_Active], lengths: list[int]) -> None:
        device = self.sums.device
        latents, total, count, largest, position = (
            torch.cat([getattr(one, field.name) for one in seen]).to(device) for field in fields(_Active)
        )
        sizes = torch.tensor([len(one.latents) for one in seen], device=device)
        dialogues, tokens = (
            torch.tensor(numbers, device=device).repeat_interleave(sizes) for numbers in (rows, lengths)
        )
        mean = total / tokens
        cell = self.groups[dialogues] * self.sae.width + latents
        self.sums.view(-1).index_add_(0, cell, mean)
        self.firing.view(-1).index_add_(0, cell, count / tokens)
        self.squares.index_add_(0, latents, mean.to(self.squares.dtype).square())
        self.top.update(latents, largest, dialogues, position)


def _blocks(seen: Sequence[_Active]) -> Iterator[slice]:
    """Slices of a few dialogues each, so that memory does not grow with the number of active latents."""
    start = entries = 0
    for row, one in enumerate(seen):
        if entries and entries + len(one.latents) > _ENTRIES_AT_ONCE:
            yield slice(start, row)
            start, entries = row, 0
        entries += len(one.latents)
    yield slice(start, len(seen))
