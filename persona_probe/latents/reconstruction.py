"""How much of a layer an SAE keeps: of its variance, and of what it does for the next token."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from persona_probe.activations.batching import batches, halving, longest_alike, tokens_per_batch_for
from persona_probe.activations.passes import run_pass
from persona_probe.activations.reductions import Batch
from persona_probe.activations.scoring import next_token_log_probs, read_until, scoring_budget
from persona_probe.activations.sinks import SINK_RATIO, SinkFilter, SinkRecord
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.rendering import Encoded
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.encoding.kept_tokens import KeptTokens, encode_alike, kept_alike
from persona_probe.latents.encoding.latent_sums import LatentReduction
from persona_probe.latents.fit import BAD, WORTHLESS, RunningFit
from persona_probe.latents.reconstruction_result import Reconstruction
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.models.stream.boundary import Boundary

RECOVERED = 0.9
"""Share of the layer's worth that a fitting SAE keeps; published ones keep 90 to 99 % on their own texts and model."""
_Replacement = Callable[[Float[Tensor, "token d_model"]], Float[Tensor, "token d_model"]]


def measure_reconstruction(
    sae: Sae,
    models: Mapping[str, Model] | Model,
    dialogues: Sequence[Dialogue],
    span: str = "all",
    *,
    loss: bool = True,
    sink_ratio: float | None = SINK_RATIO,
    tokens_per_batch: int | None = None,
    allow: bool = False,
    progress: bool = False,
) -> Reconstruction:
    """Reconstruct the output of the SAE's layer, and let the model go on from the reconstruction.

    The share of the layer's worth that is kept is (replaced by nothing - by the reconstruction) / (replaced by nothing
    - left alone), in next-token cross-entropy. ``ce_recovered`` takes zeros for nothing, as SAEBench does (Karvonen et
    al. 2025, "SAEBench", arXiv:2503.09532, "loss recovered"); ``ce_recovered_mean`` takes the mean activation of these
    tokens. Either can be the stricter: near the end of a model, zeros say that all tokens are as likely, and the mean
    names wrong ones. The verdict goes by the smaller share. The fraction of variance unexplained is against the mean,
    as in Gemma Scope (Lieberum et al. 2024, arXiv:2408.05147, section 4.1).

    Args:
        sae: reads the output of its layer.
        models: by name, for example ``{"before": ..., "after": ...}``; or one.
        dialogues: what they read; also plain texts.
        span: which tokens are reconstructed and replaced. Their next tokens are what is scored.
        loss: whether to measure cross-entropies, which takes four whole forwards more.
        sink_ratio: what makes an attention sink (`persona_probe.activations.sinks`). Sinks (of the first model) and the
            beginning of sequence are neither shown to the SAE nor replaced; None keeps sinks.
        tokens_per_batch: padded tokens a forward.
        allow: warn instead of refusing where the SAE does not fit.
        progress: show a bar.

    Returns:
        Its ``table`` has a row for each model.

    Raises:
        PersonaProbeError: if there is no model or dialogue, the SAE has another width or layer than a model, models
            would read other tokens, or the SAE leaves more than 90 % of a model's variance unexplained.
    """
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
        reading.fit.result().check(sae, model.name, allow=allow)
    rows = []
    for name, (model, reading) in zip(named, readers, strict=True):
        row = {"model": name, **reading.figures()}
        if loss:
            losses = _Losses(sae, model, reading.mean(), encoded, spans, record)
            row |= losses.measure(tokens_per_batch or scoring_budget(model), name, progress)
        rows.append(row | {"verdict": _verdict(row)})
    return Reconstruction(pd.DataFrame(rows), {"sae": sae.name, "layer": sae.layer, "span": span})


class _Scoring(LatentReduction):
    """Fit, mean activation, and which latents are ever active."""

    def __init__(self, sae: Sae, encoded: Sequence[Encoded], kept: KeptTokens) -> None:
        super().__init__(sae, encoded, kept)
        self.fit = RunningFit()
        self._fired = torch.zeros(sae.width, dtype=torch.bool)
        self._sum: Tensor | float = 0.0

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Encode and decode the kept tokens."""
        tokens, _ = self.tokens(layer, hidden, batch)
        self._pending[layer] = [
            (part, self.sae.decode(acts), int(acts.count_nonzero()), acts.ne(0).any(dim=0))
            for _, part, acts in self.chunks(tokens)
        ]

    def commit(self, batch: Batch) -> None:
        """Take the batch in."""
        for part, reconstructed, active, fired in self._pending[self.sae.layer]:
            self.fit.add(part, reconstructed, active)
            self._fired |= fired.cpu()
            self._sum = self._sum + part.cpu().double().sum(dim=0)
        self.kept.commit(batch.rows)

    def mean(self) -> Float[Tensor, "... d_model"]:
        """The mean activation."""
        return torch.as_tensor(self._sum) / self.fit.tokens

    def figures(self) -> dict[str, float | int]:
        """The columns that need no further forward."""
        fit = self.fit.result()
        return {"fvu": fit.fvu, "l0": fit.l0, "dead": 1.0 - float(self._fired.double().mean()), "tokens": fit.tokens}


class _Losses:
    """Cross-entropy after the span's tokens, with the layer left alone and replaced in three ways."""

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
        # One token further than the span, for it is what the span's last token predicts.
        self.stops = [min(span.stop + 1, len(item.input_ids)) for span, item in zip(spans, encoded, strict=True)]
        self.replacements: dict[str, _Replacement | None] = {
            "ce": None,
            "ce_sae": sae.reconstruct,
            "ce_zero": torch.zeros_like,
            "ce_mean": lambda tokens: mean.to(tokens.device, tokens.dtype).expand_as(tokens),
        }
        self.sums, self.count = dict.fromkeys(self.replacements, 0.0), 0

    def measure(self, budget: int, name: str, progress: bool) -> dict[str, float]:
        """The columns."""
        total = sum(self.stops)
        with tqdm(
            total=total, desc=f"loss {name}", unit="tok", unit_scale=True, disable=not progress, leave=False
        ) as bar:
            for rows in batches(self.stops, budget, longest_alike(self.model.plain.config.get_text_config())):
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
        found = {}
        for key, replacement in self.replacements.items():
            write = partial(self._replace, batch, replacement)
            with (
                self.model.at_boundary(
                    Boundary.of_dialogues([self.encoded[row] for row in rows], rows, self.model.template)
                ),
                self.model.writing(write, [self.sae.layer]),
            ):
                found[key] = -float(next_token_log_probs(self.model, batch, predicting).cpu().double().sum())
        for key, value in found.items():
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
    """NaN where the layer's output is worth nothing."""
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
