"""How well a trained SAE does on texts that it was not trained on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona_probe.activations.batching import tokens_per_batch_for
from persona_probe.activations.passes import run_pass
from persona_probe.activations.reductions import Batch
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.encoding.kept_tokens import KeptTokens, encode_alike, kept_alike
from persona_probe.latents.encoding.latent_sums import LatentReduction
from persona_probe.latents.fit import Fit, RunningFit
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model


def split_texts(dialogues: Sequence[Dialogue], share: float, seed: int) -> tuple[list[Dialogue], list[Dialogue]]:
    """Texts to train on, and texts held out; a text that occurs twice stays on one side.

    Raises:
        PersonaProbeError: if the share is not between 0 and 1, or nothing is left on one side.
    """
    if not 0 < share < 1:
        raise PersonaProbeError(f"held_out is {share}; give a share between 0 and 1, or dialogues")
    texts = list(dict.fromkeys(dialogue.messages for dialogue in dialogues))
    random.Random(seed).shuffle(texts)
    if len(texts) < 2:
        raise PersonaProbeError(
            f"there is only {len(texts)} different text, so none can be held out; give more dialogues, or held_out="
        )
    chosen = set(texts[: min(max(1, round(share * len(texts))), len(texts) - 1)])
    train = [dialogue for dialogue in dialogues if dialogue.messages not in chosen]
    return train, [dialogue for dialogue in dialogues if dialogue.messages in chosen]


class _HeldOut(LatentReduction):
    """Reconstruction of all kept tokens and of those in answers, and which latents fired."""

    def __init__(self, sae: Sae, encoded: Sequence[Encoded], kept: KeptTokens) -> None:
        super().__init__(sae, encoded, kept)
        self.all, self.answers = RunningFit(), RunningFit()
        self.fired = torch.zeros(sae.width, dtype=torch.bool)

    def see(self, layer: int, hidden: Float[Tensor, "batch position d_model"], batch: Batch) -> None:
        """Reconstruct, a few tokens at a time."""
        tokens, places = self.tokens(layer, hidden, batch)
        inside = torch.tensor(
            [
                self.encoded[batch.rows[row]].prompt_length <= position < self.encoded[batch.rows[row]].response_end
                for row, position in places.tolist()
            ],
            dtype=torch.bool,
        )
        self._pending[layer] = [
            (part.cpu(), self.sae.decode(acts).cpu(), *_active(acts), inside[start : start + len(part)])
            for start, part, acts in self.chunks(tokens)
        ]

    def commit(self, batch: Batch) -> None:
        """Add the batch to the sums."""
        (chunks,) = self._pending.values()
        for part, made, counts, fired, inside in chunks:
            self.all.add(part, made, int(counts.sum()))
            if bool(inside.any()):
                self.answers.add(part[inside], made[inside], int(counts[inside].sum()))
            self.fired |= fired
        self.kept.commit(batch.rows)


def _active(acts: Float[Tensor, "token latent"]) -> tuple[Int[Tensor, "... token"], Bool[Tensor, "... latent"]]:
    """How many latents are active at each token, and which at any; to keep all activations would take GiBs."""
    active = acts > 0
    return active.sum(dim=1).cpu(), active.any(dim=0).cpu()


def held_out_fit(
    sae: Sae, models: Sequence[Model], dialogues: Sequence[Dialogue], span: str = "all", *, progress: bool = False
) -> dict[str, Any]:
    """Reconstruction and dead latents over the kept tokens of ``span``, as plain numbers for JSON.

    Returns:
        ``fvu``, ``l0`` and ``tokens`` over all models; ``fvu_response``, the fvu over answers' tokens (None where there
        are none); ``dead``, the share of latents that never fired, which is the larger the fewer tokens there are;
        ``models``: ``fvu`` and ``fvu_response`` of each model, in order.
    """
    encoded, spans = encode_alike(models, dialogues, span)
    rules = kept_alike(models, len(encoded), sae.layer)
    readers = [(model, _HeldOut(sae, encoded, kept)) for model, kept in zip(models, rules, strict=True)]
    budget = tokens_per_batch_for(models[0].device)
    run_pass(readers, encoded, spans, tokens_per_batch=budget, progress=progress, label="held out")
    seen = [reduction for _, reduction in readers]
    fits = [(reduction.all.result(), reduction.answers.result()) for reduction in seen]
    whole = [fit for fit, _ in fits]
    tokens = sum(fit.tokens for fit in whole)
    fired = torch.stack([reduction.fired for reduction in seen]).any(dim=0)
    return {
        "fvu": _pooled(whole),
        "fvu_response": _pooled([answers for _, answers in fits]),
        "l0": sum(fit.l0 * fit.tokens for fit in whole) / tokens,
        "dead": 1.0 - float(fired.float().mean()),
        "tokens": tokens,
        "texts": len(dialogues),
        "models": [{"fvu": _pooled([every]), "fvu_response": _pooled([answers])} for every, answers in fits],
    }


def _pooled(fits: Sequence[Fit]) -> float | None:
    """Mean FVU over models, so that none counts more because its stream varies more; None where no model has one."""
    known = [fit.fvu for fit in fits if not math.isnan(fit.fvu)]
    return sum(known) / len(known) if known else None
