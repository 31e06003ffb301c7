"""How much of a layer remains in an SAE's reconstruction: of its variance, and of its effect on the next token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from persona_probe.activations.batching import batches, halving, tokens_per_batch_for
from persona_probe.activations.passes import run_pass
from persona_probe.activations.reductions import Batch
from persona_probe.activations.scoring import next_token_log_probs, read_until, scoring_budget
from persona_probe.activations.sinks import SINK_RATIO, SinkFilter, SinkRecord
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.latents.encoding.kept_tokens import KeptTokens, encode_alike, kept_alike
from persona_probe.latents.encoding.latent_sums import LatentReduction
from persona_probe.latents.fit import BAD, WORTHLESS, RunningFit
from persona_probe.latents.reconstruction_result import Reconstruction
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.models.positions import longest_alike
from persona_probe.models.stream.boundary import Boundary

RECOVERED = 0.9
"""The share of the layer's effect that remains if an SAE fits: 90 to 99 % for published ones, on their own models."""
_Replacement = Callable[[Float[Tensor, "token d_model"]], Float[Tensor, "token d_model"]]


def measure_reconstruction(
    models: Mapping[str, Model] | Model,
    sae: Sae,
    dialogues: Sequence[Dialogue],
    span: str = "all",
    *,
    loss: bool = True,
    sink_ratio: float | None = SINK_RATIO,
    tokens_per_batch: int | None = None,
    allow_unrelated: bool = False,
    progress: bool = False,
) -> Reconstruction:
    """How well an SAE reconstructs the output of its layer, and how the reconstruction changes the model's loss.

    The share of the layer's effect that remains is (loss with the layer replaced by nothing - loss with the
    reconstruction) / (loss with the layer replaced by nothing - loss of the model as it is), in next-token
    cross-entropy. ``ce_recovered`` takes zeros as nothing, as SAEBench does (Karvonen et al. 2025, "SAEBench",
    arXiv:2503.09532, "loss recovered"); ``ce_recovered_mean`` takes the mean activation of these tokens. Either can be
    stricter: near the end of a model, zeros make all tokens equally likely, and the mean predicts wrong ones. The
    verdict uses the smaller share. The fraction of variance unexplained is relative to the mean, as in Gemma Scope
    (Lieberum et al. 2024, arXiv:2408.05147, section 4.1).

    Args:
        models: one model, or several by name, for example ``{"before": ..., "after": ...}``.
        sae: the SAE, which reads the output of its layer.
        dialogues: the texts that the models read; plain texts too.
        span: which tokens are reconstructed and replaced; the loss is that of the tokens after them.
        loss: whether to measure cross-entropies, which needs four more whole forward passes.
        sink_ratio: what counts as an attention sink (`persona_probe.activations.sinks`). Sinks (of the first model) and
            the beginning of sequence are neither shown to the SAE nor replaced; with None, sinks are too.
        tokens_per_batch: padded tokens per forward pass.
        allow_unrelated: only warn if the SAE does not fit.
        progress: show a progress bar.

    Returns:
        `Reconstruction`; its ``table`` has one row per model.

    Raises:
        PersonaProbeError: if there is no model or dialogue, the SAE has another width or layer than a model, models
            would read different tokens, or the SAE leaves more than 90 % of a model's variance unexplained.
    """
    check_types(models=(models, Model, {str: Model}), sae=(sae, Sae), dialogues=(dialogues, [Dialogue]))
    named = {models.name: models} if isinstance(models, Model) else dict(models)
    if not named:
        raise PersonaProbeError("measure_reconstruction: there are no models: the mapping is empty")
    for model in named.values():
        sae.check_model(model)
    encoded, spans = encode_alike(list(named.values()), dialogues, span)
    rules = kept_alike(list(named.values()), len(encoded), sae.layer, sink_ratio)
    readers = [(model, _Scoring(sae, encoded, kept)) for model, kept in zip(named.values(), rules, strict=True)]
    record = None if rules[0].sinks is None else rules[0].sinks.record
    budget = tokens_per_batch or tokens_per_batch_for(readers[0][0].device)
    run_pass(readers, encoded, spans, tokens_per_batch=budget, progress=progress, label="reconstruction")
    for model, reading in readers:
        reading.fit.result().check(sae, model.name, allow_unrelated=allow_unrelated)
    rows = []
    for name, (model, reading) in zip(named, readers, strict=True):
        row = {"model": name, **reading.figures()}
        if loss:
            losses = _Losses(sae, model, reading.mean(), encoded, spans, record)
            row |= losses.measure(tokens_per_batch or scoring_budget(model), name, progress)
        rows.append(row | {"verdict": _verdict(row)})
    return Reconstruction(pd.DataFrame(rows), {"sae": sae.name, "layer": sae.layer, "span": span})


class _Scoring(LatentReduction):
    """The fit, the mean activation, and which latents are ever active."""

    def __init__(self, sae: Sae, encoded: Sequence[Encoded], kept: KeptTokens) -> None:
        super().__init__(sae, encoded, kept)
        self.fit = RunningFit()
        self._fired = torch.zeros(sae.width, dtype=torch.bool)
        self._sum: Tensor | float = 0.0

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Encode and decode the tokens that count."""
        tokens, _ = self.tokens(layer, hidden, batch)
        self._pending[layer] = [
            (part, self.sae.decode(acts), int(acts.count_nonzero()), acts.ne(0).any(dim=0))
            for _, part, acts in self.chunks(tokens)
        ]

    def commit(self, batch: Batch) -> None:
        """Add the batch."""
        for part, reconstructed, active, fired in self._pending[self.sae.layer]:
            self.fit.add(part, reconstructed, active)
            self._fired |= fired.cpu()
            self._sum = self._sum + part.cpu().double().sum(dim=0)
        self.kept.commit(batch.rows)

    def mean(self) -> Float[Tensor, "... d_model"]:
        """The mean activation."""
        return torch.as_tensor(self._sum) / self.fit.tokens

    def figures(self) -> dict[str, float | int]:
        """The columns of the table that need no further forward pass."""
        fit = self.fit.result()
        return {"fvu": fit.fvu, "l0": fit.l0, "dead": 1.0 - float(self._fired.double().mean()), "tokens": fit.tokens}


class _Losses:
    """The cross-entropy of the tokens after the span's, with the layer as it is and replaced in three ways."""

    def __init__(
        self,
        sae: Sae,
        model: Model,
        mean: Float[Tensor, "... d_model"],
        encoded: Sequence[Encoded],
        spans: Sequence[slice],
        record: SinkRecord | None,
    ) -> None:
        self.sae, self.model, self.encoded, self.spans = sae, model, encoded, spans
        sinks = None if record is None else SinkFilter(SINK_RATIO, len(encoded), [sae.layer], follow=record)
        self.kept = KeptTokens(model, sinks)
        # One token further than the span: the span's last token predicts it.
        self.stops = [min(span.stop + 1, len(item.input_ids)) for span, item in zip(spans, encoded, strict=True)]
        self.replacements: dict[str, _Replacement | None] = {
            "ce": None,
            "ce_sae": sae.reconstruct,
            "ce_zero": torch.zeros_like,
            "ce_mean": lambda tokens: mean.to(tokens.device, tokens.dtype).expand_as(tokens),
        }
        self.sums, self.count = dict.fromkeys(self.replacements, 0.0), 0

    def measure(self, budget: int, name: str, progress: bool) -> dict[str, float]:
        """The columns of the table with losses."""
        total = sum(self.stops)
        with tqdm(
            total=total, desc=f"loss {name}", unit="tok", unit_scale=True, disable=not progress, leave=False
        ) as bar:
            for rows in batches(self.stops, budget, longest_alike(self.model.plain.config)):
                halving(rows, self._run, lambda row: self.encoded[row].dialogue.name)
                bar.update(sum(self.stops[row] for row in rows))
        means = {key: value / self.count if self.count else math.nan for key, value in self.sums.items()}
        gap = means["ce_sae"]
        return means | {
            "ce_recovered": _share(means["ce_zero"] - gap, means["ce_zero"] - means["ce"]),
            "ce_recovered_mean": _share(means["ce_mean"] - gap, means["ce_mean"] - means["ce"]),
        }

    @torch.inference_mode()
    def _run(self, rows: list[int]) -> None:
        batch = read_until(self.model, rows, self.encoded, self.spans, self.stops)
        predicting = batch.inside.clone()
        predicting[:, :-1] &= batch.real[:, 1:]
        predicting[:, -1] = False
        if not bool(predicting.any()):
            return
        sums = {}
        for key, replacement in self.replacements.items():
            write = partial(self._replace, batch, replacement)
            with (
                self.model.at_boundary(
                    Boundary.of_dialogues([self.encoded[row] for row in rows], rows, self.model.template)
                ),
                self.model.writing(write, [self.sae.layer]),
            ):
                sums[key] = -float(next_token_log_probs(self.model, batch, predicting).cpu().double().sum())
        for key, value in sums.items():
            self.sums[key] += value
        self.count += int(predicting.sum())

    def _replace(
        self, batch: Batch, replacement: _Replacement | None, layer: int, _offset: int, hidden: Tensor
    ) -> Tensor:
        if replacement is None:
            return hidden
        shown = self.kept.mask(layer, hidden, batch)
        replaced = hidden.clone()
        replaced[shown] = replacement(hidden[shown]).to(hidden.dtype)
        return replaced


def _share(kept: float, whole: float) -> float:
    """The share, or NaN if the layer's output has no effect."""
    return kept / whole if whole > 0 else math.nan


def _verdict(row: Mapping[str, float | int | str]) -> str:
    unexplained = float(row["fvu"])
    if math.isnan(unexplained):
        return "cannot be said: these tokens do not vary"
    if unexplained > WORTHLESS:
        return "does not fit: its latents mean nothing here"
    if unexplained > BAD:
        return "fits badly: much of the layer is in no latent"
    shares = [float(row.get(column, math.nan)) for column in ("ce_recovered", "ce_recovered_mean")]
    recovered = min((share for share in shares if not math.isnan(share)), default=None)
    if recovered is None:
        return "fits"
    lost = f"{max(0.0, 1.0 - recovered):.0%} of what the layer does for the next token is lost"
    return f"fits: {lost}" if recovered >= RECOVERED else f"explains the variance, but {lost}"
