"""Reading the same answers unsteered and under several interventions, as rows of the same batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm.auto import tqdm

from persona_probe.activations.batching import batches, halving
from persona_probe.activations.scoring import next_token_logits, next_tokens, read_until
from persona_probe.clock import working
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.models.model import Model
from persona_probe.models.positions import longest_alike
from persona_probe.models.stream.boundary import Boundary
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.steer_context import steer

Read = tuple[np.ndarray, np.ndarray, np.ndarray]


class SideBySide:
    """Answered dialogues that are read under several interventions.

    Attributes:
        stops: for each dialogue, the position after its answer.
        counts: for each dialogue, the number of tokens of its answer.
    """

    def __init__(self, model: Model, answered: Sequence[Dialogue]) -> None:
        self._model = model
        self._encoded = model.encode(answered)
        self._spans = [item.span("generation") for item in self._encoded]
        # One token further than the span, since the span's last token predicts it.
        self.stops = [span.stop + 1 for span in self._spans]
        self.counts = [span.stop - span.start for span in self._spans]
        self._places = np.cumsum([0, *self.counts])

    def read(self, interventions: Sequence[Intervention], budget: int, progress: bool) -> Read:
        """KL and log-probabilities ``(intervention, token)``, and unsteered log-probabilities ``(token,)``."""
        size = (len(interventions), int(self._places[-1]))
        values = np.full(size, np.nan), np.full(size, np.nan), np.full(size[1], np.nan)
        # The engine's rows are settings here, not dialogues, so that the vectors of each setting are stored only once.
        settings = [None, *interventions]

        def run(rows: list[int]) -> None:
            columns = np.concatenate([np.arange(self._places[row], self._places[row + 1]) for row in rows])
            for whole, part in zip(values, self._read(rows, len(settings)), strict=True):
                whole[..., columns] = part

        border = longest_alike(self._model.plain.config)
        with (
            steer(self._model, settings),
            working("reading") as spent,
            tqdm(total=len(self.stops), desc="divergence", disable=not progress, leave=False) as bar,
        ):
            spent.tokens += sum(self.stops) * len(settings)
            for rows in batches(self.stops, max(1, budget // len(settings)), border):
                halving(rows, run, lambda row: self._encoded[row].dialogue.name)
                bar.update(len(rows))
        return values

    @torch.inference_mode()
    def _read(self, rows: list[int], settings: int) -> Read:
        every = rows * settings
        batch = read_until(self._model, every, self._encoded, self._spans, self.stops)
        owners = [setting for setting in range(settings) for _ in rows]
        encoded = [self._encoded[row] for row in every]
        with self._model.at_boundary(Boundary.of_dialogues(encoded, owners, self._model.template)):
            logits = next_token_logits(self._model, batch, batch.inside)
        logits = logits.view(settings, -1, logits.shape[-1])
        answer = next_tokens(batch, batch.inside)[: logits.shape[1], None].to(logits.device)
        plain = functional.log_softmax(logits[0], dim=-1)
        kls, log_probs = [], []
        # One at a time, since probabilities of a whole vocabulary per token are large.
        for steered in logits[1:]:
            other = functional.log_softmax(steered, dim=-1)
            kls.append(_kl(plain, other))
            log_probs.append(other.gather(1, answer)[:, 0])
        parts = torch.stack(kls), torch.stack(log_probs), plain.gather(1, answer)[:, 0]
        kl, steered_log_probs, unsteered = (part.double().cpu().numpy() for part in parts)
        return kl, steered_log_probs, unsteered


def _kl(p: Float[Tensor, "token vocabulary"], q: Float[Tensor, "token vocabulary"]) -> Float[Tensor, "... token"]:
    """KL(p || q) in nats, from log-probabilities; tokens with probability 0 under p add nothing."""
    terms = torch.where(p == -torch.inf, 0.0, p.exp() * (p - q))
    # Rounding can leave a sum of equal distributions below zero.
    return terms.sum(dim=-1).clamp(min=0.0)
