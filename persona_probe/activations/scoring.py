"""Complete forward passes that score the text's own tokens; `run_pass` stops at the deepest layer that is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from persona_probe.activations.batching import batches, halving, tokens_per_batch_for
from persona_probe.activations.passes import padded
from persona_probe.activations.reductions import Batch
from persona_probe.activations.shared_prompts import SharedPrompts
from persona_probe.clock import working
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.models.model import Model
from persona_probe.models.positions import longest_alike
from persona_probe.models.stream.boundary import Boundary

_LOGITS_AT_ONCE = 2**27
"""Numbers in a batch's logits: 512 MiB in float32, and a few times that with what is computed from them."""


def scoring_budget(model: Model) -> int:
    """Padded tokens per forward pass that computes logits: fewer if the vocabulary is large."""
    vocabulary = int(model.plain.config.get_text_config().vocab_size)
    return max(1, min(tokens_per_batch_for(model.device), _LOGITS_AT_ONCE // vocabulary))


def read_until(
    model: Model, rows: list[int], encoded: Sequence[Encoded], spans: Sequence[slice], stops: Sequence[int]
) -> Batch:
    """A batch of texts that are cut at ``stops``, not at the ends of their spans; ``inside`` is the span."""
    batch = padded(model, rows, encoded, [slice(0, stop) for stop in stops])
    return Batch(rows, batch.ids, batch.real, places(rows, spans, batch))


def places(rows: list[int], spans: Sequence[slice], batch: Batch) -> Bool[Tensor, "batch position"]:
    """Which tokens of the batch are in the rows' ``spans``."""
    device = batch.ids.device
    position = torch.arange(batch.ids.shape[1], device=device)[None, :]
    starts, stops = (
        torch.tensor([getattr(spans[row], end) for row in rows], device=device)[:, None] for end in ("start", "stop")
    )
    return (position >= starts) & (position < stops) & batch.real


def next_token_logits(
    model: Model, batch: Batch, predicting: Bool[Tensor, "batch position"]
) -> Float[Tensor, "token vocabulary"]:
    """The model's logits (float32) at each ``predicting`` position, row by row."""
    output = model.hf(input_ids=batch.ids, attention_mask=batch.real.long(), use_cache=False)
    row, position = predicting.nonzero(as_tuple=True)
    logits: Tensor = output.logits
    return logits[row.to(logits.device), position.to(logits.device)].float()


def next_tokens(batch: Batch, predicting: Bool[Tensor, "batch position"]) -> Int[Tensor, "... token"]:
    """The token after each ``predicting`` position, row by row."""
    row, position = predicting.nonzero(as_tuple=True)
    return batch.ids[row, position + 1]


def next_token_log_probs(
    model: Model, batch: Batch, predicting: Bool[Tensor, "batch position"]
) -> Float[Tensor, "... token"]:
    """The log-probability (nats) of the token after each ``predicting`` position, row by row."""
    chosen = next_token_logits(model, batch, predicting)
    return -functional.cross_entropy(chosen, next_tokens(batch, predicting).to(chosen.device), reduction="none")


def answer_log_probs(
    model: Model,
    dialogues: Sequence[Dialogue],
    *,
    rows: Sequence[int] | None = None,
    template: ChatTemplate | None = None,
    tokens_per_batch: int | None = None,
    progress: bool = False,
) -> tuple[Float[np.ndarray, "... dialogue"], Int[np.ndarray, "... dialogue"]]:
    """The log-probability (nats) of each dialogue's answer, summed over its tokens, and the number of these tokens.

    Several answers to one prompt are read after one reading of it (`SharedPrompts`), if the model's cache permits.

    Args:
        model: which model reads.
        dialogues: dialogues that end with an answer.
        rows: for steering, which of the caller's dialogues each one belongs to; by default its own number. Only those
            that belong to the same one share their prompt.
        template: what turns dialogues into tokens; default the model's own.
        tokens_per_batch: padded tokens per forward pass.
        progress: show a bar.

    Raises:
        PersonaProbeError: if there is no dialogue, or one has no answer.
    """
    template = template or model.template
    encoded = model.encode(dialogues, template=template)
    spans = [item.span("generation") for item in encoded]
    stops = [span.stop + 1 for span in spans]
    counts = np.array([span.stop - span.start for span in spans])
    owners = list(range(len(encoded))) if rows is None else list(rows)
    budget = tokens_per_batch or scoring_budget(model)
    sums = np.full(len(encoded), np.nan)

    @torch.inference_mode()
    def whole(part: list[int]) -> Float[np.ndarray, "... row"]:
        batch = read_until(model, part, encoded, spans, stops)
        boundary = Boundary.of_dialogues([encoded[row] for row in part], [owners[row] for row in part], template)
        with model.at_boundary(boundary):
            log_probs = next_token_log_probs(model, batch, batch.inside).double().cpu().numpy()
        return np.asarray(np.add.reduceat(log_probs, np.cumsum([0, *counts[part][:-1]])))

    with (
        working("reading") as spent,
        tqdm(total=len(encoded), desc="log-likelihood", disable=not progress, leave=False) as bar,
    ):
        spent.tokens += sum(stops)

        def done(part: list[int], found: Float[np.ndarray, "... row"]) -> None:
            sums[part] = found
            bar.update(len(part))

        shared = SharedPrompts(model, encoded, owners, template, budget)
        if shared.can_be_used(whole):
            shared.read(done)
        else:
            for part in batches(stops, budget, longest_alike(model.plain.config)):
                halving(part, lambda part: done(part, whole(part)), lambda row: encoded[row].dialogue.name)
    return sums, counts
