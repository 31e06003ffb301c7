"""What a loaded model thinks of each token of given answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from persona_probe.activations.batching import batches, halving
from persona_probe.activations.scoring import next_token_logits, next_tokens, read_until, scoring_budget
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.models.generation import stop_tokens
from persona_probe.models.model import Model
from persona_probe.models.positions import longest_alike
from persona_probe.models.stream.boundary import Boundary


@dataclass(frozen=True)
class AnswerTokens:
    """An answer's tokens, read by a model.

    Attributes:
        prompt_tokens: how many tokens come before the answer.
        tokens: the answer's tokens as text.
        log_probs: the log-probability (nats) of each.
        likeliest: whether each is the token that the model would write there (greedily).
        ends: whether the model would end the answer after the last one.
    """

    prompt_tokens: int
    tokens: tuple[str, ...]
    log_probs: Float[np.ndarray, "... token"]
    likeliest: Bool[np.ndarray, "... token"]
    ends: bool


def read_answer_tokens(model: Model, dialogues: Sequence[Dialogue]) -> list[AnswerTokens]:
    """The tokens of every dialogue's answer as ``model`` (steered, if it is being steered) reads them.

    Raises:
        PersonaProbeError: if there is no dialogue, or one has no answer, or an empty one.
    """
    encoded = model.encode(dialogues)
    spans = []
    for item in encoded:
        span = item.span("generation")  # and one token further, to see whether the model would end there
        spans.append(slice(span.start, min(span.stop + 1, len(item.input_ids) - 1)))
    stops = [span.stop + 1 for span in spans]
    ends = set(stop_tokens(model))
    results: dict[int, AnswerTokens] = {}

    @torch.inference_mode()
    def read(part: list[int]) -> None:
        batch = read_until(model, part, encoded, spans, stops)
        with model.at_boundary(Boundary.of_dialogues([encoded[row] for row in part], part, model.template)):
            logits = next_token_logits(model, batch, batch.inside)
        chosen = next_tokens(batch, batch.inside).to(logits.device)
        log_probs = torch.log_softmax(logits, dim=-1).gather(1, chosen[:, None])[:, 0].double().cpu().numpy()
        greedy = logits.argmax(dim=-1).cpu().numpy()
        start = 0
        for row in part:
            size = spans[row].stop - spans[row].start
            here = slice(start, start + size)
            results[row] = _tokens(model, encoded[row], log_probs[here], greedy[here], ends)
            start += size

    for part in batches(stops, scoring_budget(model), longest_alike(model.plain.config)):
        halving(part, read, lambda row: encoded[row].dialogue.name)
    return [results[row] for row in range(len(encoded))]


def _tokens(model: Model, item: Encoded, log_probs: np.ndarray, greedy: np.ndarray, ends: set[int]) -> AnswerTokens:
    ids = np.array(item.input_ids[item.prompt_length : item.response_end])
    return AnswerTokens(
        item.prompt_length,
        tuple(str(model.tokenizer.decode([token], skip_special_tokens=False)) for token in ids.tolist()),
        log_probs[: len(ids)],
        greedy[: len(ids)] == ids,
        len(greedy) > len(ids) and int(greedy[len(ids)]) in ends,
    )
