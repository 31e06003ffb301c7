"""What an SAE is trained on: an endless, shuffled stream of activations, in memory of a fixed size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from persona_probe.activations.batching import tokens_per_batch_for
from persona_probe.activations.passes import run_pass
from persona_probe.activations.reductions import Batch, Reduction
from persona_probe.activations.sinks import SINK_RATIO
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.encoding.kept_tokens import KeptTokens, encode_alike, kept_alike
from persona_probe.models.model import Model

BUFFER_BYTES = 2**30
"""The default buffer, in float32: 1.7 M tokens of Persona World's models, 65 k tokens at d_model=4096."""
_CHUNKS = 16
"""A sixteenth of the buffer is read at a time, so that what waits to go in is small compared with the buffer."""

_Read = Callable[[Sequence[int]], Tensor]
"""The kept tokens of some dialogues in all models, ``(token, d_model)``."""


class _KeepTokens(Reduction):
    """The kept tokens of each batch, as they come, on the CPU."""

    def __init__(self, layer: int, encoded: Sequence[Encoded], kept: KeptTokens) -> None:
        super().__init__([layer])
        self.encoded, self.kept = encoded, kept
        self.parts: list[Tensor] = []

    def see(self, layer: int, hidden: Float[Tensor, "batch position d_model"], batch: Batch) -> None:
        """Pick the kept tokens."""
        tokens, _ = self.kept.tokens(layer, hidden, batch, self.encoded)
        self._pending[layer] = tokens.float().cpu()

    def commit(self, batch: Batch) -> None:
        """Add the batch's tokens."""
        self.parts.extend(self._pending.values())
        self.kept.commit(batch.rows)


def check_readable(models: Sequence[Model], layer: int) -> None:
    """Raise if one SAE of ``layer`` cannot read all models.

    Raises:
        PersonaProbeError: if there is no model, they differ in d_model, or one has no such layer.
    """
    if not models:
        raise PersonaProbeError("there are no models: the list is empty")
    for model in models:
        if not 0 <= layer < model.n_layers:
            raise PersonaProbeError(f"layer {layer} does not exist: {model.name} has layers 0 to {model.n_layers - 1}")
        if model.d_model != models[0].d_model:
            raise PersonaProbeError(
                f"{model.name} has d_model={model.d_model} and {models[0].name} has {models[0].d_model}; one SAE reads "
                "only models of the same width, for example a model before and after fine-tuning"
            )


def token_batches(
    models: Sequence[Model],
    dialogues: Sequence[Dialogue],
    layer: int,
    *,
    batch: int,
    span: str = "all",
    buffer_tokens: int | None = None,
    seed: int = 0,
    sink_ratio: float | None = SINK_RATIO,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> Iterator[Float[Tensor, "token d_model"]]:
    """Batches of the models' activations at ``layer``, without end.

    Every model reads every text, so their tokens are mixed evenly; the beginning-of-sequence token and attention sinks
    (of the first model) are left out. If all tokens fit into the buffer, the texts are read once and shuffled anew in
    every pass. Otherwise the texts are read again and again, each pass in a new order, and batches are drawn from a
    full buffer, of which half is then replaced.

    Args:
        models: whose activations.
        dialogues: what they read.
        layer: whose output.
        batch: tokens per batch.
        span: which tokens of each dialogue.
        buffer_tokens: how many tokens are held, ``4 * d_model`` bytes each; default 1 GiB of them.
        seed: of the order; the global random state is not touched.
        sink_ratio: above which ratio a token is an attention sink; sinks are kept if this is None, or if the first
            model is being steered.
        tokens_per_batch: padded tokens per forward pass.
        progress: show a bar while texts are read for the first time.

    Returns:
        An iterator of float32 batches ``(batch, d_model)`` on the CPU.

    Raises:
        PersonaProbeError: if there is no dialogue or a span is empty, the layer does not exist, the models read other
            tokens, or the buffer holds fewer than two batches; while reading, if an activation is not finite.
    """
    check_readable(models, layer)
    if batch < 1:
        raise PersonaProbeError(f"batch is {batch}; it must be at least 1 token")
    capacity = max(BUFFER_BYTES // (4 * models[0].d_model), 2 * batch) if buffer_tokens is None else buffer_tokens
    if capacity < 2 * batch:
        raise PersonaProbeError(
            f"buffer_tokens is {capacity}; it must hold at least two batches of {batch} tokens to shuffle them"
        )
    encoded, spans = encode_alike(models, dialogues, span)
    total = len(models) * sum(where.stop - where.start for where in spans)
    budget = tokens_per_batch or tokens_per_batch_for(models[0].device)
    generator = torch.Generator().manual_seed(seed)

    def read(rows: Sequence[int]) -> Tensor:
        some = [encoded[row] for row in rows]
        rules = kept_alike(models, len(some), layer, sink_ratio)
        readers = [(model, _KeepTokens(layer, some, kept)) for model, kept in zip(models, rules, strict=True)]
        run_pass(readers, some, [spans[row] for row in rows], tokens_per_batch=budget, progress=False)
        return torch.cat([part for _, reduction in readers for part in reduction.parts])

    chunk = max(1, len(encoded) * min(capacity, total) // _CHUNKS // total)
    if total <= capacity:
        return _held(_pass(read, range(len(encoded)), chunk, progress), total, batch, generator)
    return _buffered(_passes(read, len(encoded), chunk, generator), capacity, batch, generator)


def _pass(
    read: _Read, rows: Sequence[int], chunk: int, progress: bool = False
) -> Iterator[Float[Tensor, "token d_model"]]:
    """The tokens of a few dialogues at a time."""
    with tqdm(total=len(rows), desc="activations", unit="text", disable=not progress, leave=False) as bar:
        for start in range(0, len(rows), chunk):
            some = rows[start : start + chunk]
            yield read(some)
            bar.update(len(some))


def _passes(
    read: _Read, n_dialogues: int, chunk: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "token d_model"]]:
    """The tokens of pass after pass, each in another order."""
    while True:
        yield from _pass(read, torch.randperm(n_dialogues, generator=generator).tolist(), chunk)


def _held(
    source: Iterator[Tensor], at_most: int, batch: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "token d_model"]]:
    """Batches of tokens that all stay in memory; a batch may contain the end of one pass and the start of the next."""
    part = next(source)
    tokens, n = part.new_empty(at_most, part.shape[1]), 0
    for more in itertools.chain([part], source):
        tokens[n : n + len(more)] = more
        n += len(more)
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        yield tokens[order[:batch]]
        order = order[batch:]


def _buffered(
    source: Iterator[Tensor], capacity: int, batch: int, generator: torch.Generator
) -> Iterator[Float[Tensor, "token d_model"]]:
    """Batches from a full buffer; the tokens given out are replaced when they are half of it."""
    waiting = next(source)
    buffer = torch.empty(capacity, waiting.shape[1])
    free = torch.arange(capacity)
    served = max(1, capacity // 2 // batch) * batch
    while True:
        while len(free):
            if not len(waiting):
                waiting = next(source)
            n = min(len(free), len(waiting))
            buffer[free[:n]] = waiting[:n]
            free, waiting = free[n:], waiting[n:]
        free = torch.randperm(capacity, generator=generator)[:served]
        for start in range(0, served, batch):
            yield buffer[free[start : start + batch]]
