"""How much each latent makes a model give the misaligned answer rather than the aligned one, to first order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control
from torch import Tensor, nn
from tqdm.auto import tqdm

from persona_probe.activations.batching import batches, halving
from persona_probe.activations.reductions import Batch
from persona_probe.activations.scoring import next_token_log_probs, places, read_until, scoring_budget
from persona_probe.activations.sinks import SINK_RATIO
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.latents.encoding.encode import GROUPS, question_groups
from persona_probe.latents.encoding.kept_tokens import KeptTokens, encode_alike, kept_alike
from persona_probe.latents.encoding.latent_sums import FIT_SAMPLE, LatentReduction
from persona_probe.latents.fit import RunningFit
from persona_probe.latents.ranking.attribution_result import LatentAttribution
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.models.positions import longest_alike
from persona_probe.models.stream.boundary import Boundary
from persona_probe.statistics.grouped_means import grouped_mean

NORMALIZATIONS = ("none", "token")


def attribute_latents(
    model: Model,
    sae: Sae,
    misaligned: Sequence[Dialogue],
    aligned: Sequence[Dialogue],
    *,
    span: str = "generation",
    normalize: str = "none",
    max_groups: int = GROUPS,
    sink_ratio: float | None = SINK_RATIO,
    tokens_per_batch: int | None = None,
    allow_unrelated: bool = False,
    progress: bool = False,
) -> LatentAttribution:
    """First-order effect of each latent on the log-odds of a misaligned answer against an aligned one.

    A latent's attribution in a text is the sum over the span's tokens of its activation times the derivative of the
    answer's log-probability along its decoder row: the change from zero to what it is, if the model were linear
    (Marks et al. 2024, "Sparse feature circuits", arXiv:2403.19647, section 3.1, equation 2, with zero as the baseline;
    "attribution patching", Nanda 2023). It takes one model and one backward pass per text, for all latents at once, so
    it can choose among thousands of latents those whose removal is worth trying
    (`persona_probe.latents.steer_latents`). It misses what is not linear: latents that can replace each other, and
    latents whose effect is saturated (where the model is sure of the next token, derivatives are small, and removing
    the latent can do far more than they say). A latent that is silent in this model has no attribution, however large
    the effect of activating it would be.

    Args:
        model: whose next tokens are explained.
        sae: reads the output of its layer.
        misaligned: answered dialogues.
        aligned: other answers to the same prompts, in the same order.
        span: which tokens' activations count. The log-probability is always that of the whole answer.
        normalize: ``none`` for the summed log-probability of an answer's tokens; ``token`` for their mean, so that long
            answers do not count more.
        max_groups: the largest number of groups of questions; intervals are over groups.
        sink_ratio: above which ratio a token is an attention sink (`persona_probe.activations.sinks`), where no latent
            is read.
        tokens_per_batch: padded tokens per forward and backward pass.
        allow_unrelated: warn instead of refusing where the SAE does not fit.
        progress: show a bar.

    Returns:
        Its ``table`` has one row per latent, largest absolute attribution first.

    Raises:
        PersonaProbeError: if the two lists do not match (the first such pair is named), an answer is missing or has no
            token, the SAE has another width or layer than the model, or it leaves more than 90 % of the variance
            unexplained.
    """
    check_types(
        model=(model, Model),
        sae=(sae, Sae),
        misaligned=(misaligned, [Dialogue]),
        aligned=(aligned, [Dialogue]),
        max_groups=(max_groups, WHOLE),
    )
    if normalize not in NORMALIZATIONS:
        raise PersonaProbeError(f"normalize is {normalize!r}; choose one of {', '.join(NORMALIZATIONS)}")
    _check_pairs(misaligned, aligned)
    sae.check_model(model)
    encoded, spans = encode_alike([model], [*misaligned, *aligned], span)
    answers = [item.span("generation") for item in encoded]
    signs = np.repeat([1.0, -1.0], len(misaligned))
    lengths = np.array([answer.stop - answer.start for answer in answers])
    weights = signs / lengths if normalize == "token" else signs
    groups = question_groups(misaligned, max_groups)
    (kept,) = kept_alike([model], len(encoded), sae.layer, sink_ratio)
    # Tokens after the answer do not change it.
    stops = [item.response_end for item in encoded]
    with (
        _differentiable(model.hf),
        tqdm(
            total=sum(stops), desc="attribution", unit="tok", unit_scale=True, disable=not progress, leave=False
        ) as bar,
    ):
        sums = _AttributionSums(sae, encoded, kept, np.tile(groups, 2), model.device)

        def run(rows: list[int]) -> None:
            batch = read_until(model, rows, encoded, spans, stops)
            _backward(model, sums, batch, places(rows, answers, batch), weights[rows])

        budget = tokens_per_batch or scoring_budget(model)
        for rows in batches(stops, budget, longest_alike(model.plain.config)):
            halving(rows, run, lambda row: encoded[row].dialogue.name)
            bar.update(sum(stops[row] for row in rows))
    sums.fit.result().check(sae, model.name, allow_unrelated=allow_unrelated)
    table = _table(sums, np.bincount(groups), len(set(question_groups(misaligned, len(misaligned)))))
    about = {"sae": sae.name, "layer": sae.layer, "model": model.name, "model_hash": model.fingerprint()}
    return LatentAttribution(table, {**about, "span": span, "normalize": normalize, "pairs": len(misaligned)})


class _AttributionSums(LatentReduction):
    """Activation times derivative of every latent, summed by group of questions."""

    def __init__(
        self,
        sae: Sae,
        encoded: Sequence[Encoded],
        kept: KeptTokens,
        groups: Int[np.ndarray, "... dialogue"],
        device: torch.device,
    ) -> None:
        super().__init__(sae, encoded, kept)
        self.groups = torch.as_tensor(groups, device=device)
        self.sums = torch.zeros(int(groups.max()) + 1, sae.width, device=device)
        self.live = torch.zeros(sae.width, dtype=torch.bool, device=device)
        self.fit = RunningFit()

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Keep the tokens until their gradient is known."""
        self._pending[layer] = self.tokens(layer, hidden, batch)

    def take(self, gradient: Float[Tensor, "batch position d_model"], batch: Batch) -> None:
        """Multiply the activations with the gradient of the log-odds that are explained."""
        tokens, where = self._pending[self.sae.layer]
        slopes = gradient[where[:, 0], where[:, 1]]
        group = self.groups[torch.as_tensor(batch.rows, device=self.groups.device)][where[:, 0].to(self.groups.device)]
        sums, live, fits = torch.zeros_like(self.sums), torch.zeros_like(self.live), []
        wanted = FIT_SAMPLE - self.fit.tokens
        for start, part, acts in self.chunks(tokens):
            acts = acts.detach().requires_grad_()
            decoded = self.sae.decode(acts)
            # Decoding is linear: this is each decoder row's product with the gradient, including any normalisation at
            # run time, without a second copy of the decoder.
            stop = start + len(part)
            (slope,) = torch.autograd.grad(decoded, acts, slopes[start:stop].to(decoded.dtype))
            acts = acts.detach()
            sums.index_add_(0, group[start:stop], (acts * slope).to(sums))
            live |= acts.ne(0).any(dim=0).to(live.device)
            if start < wanted:
                fits.append((part, decoded.detach(), int(acts.count_nonzero())))
        self._pending[self.sae.layer] = (sums, live, fits)

    def commit(self, batch: Batch) -> None:
        """Add the batch to the sums."""
        sums, live, fits = self._pending[self.sae.layer]
        self.sums += sums
        self.live |= live
        for part, reconstructed, active in fits:
            self.fit.add(part, reconstructed, active)
        self.kept.commit(batch.rows)


def _backward(
    model: Model,
    sums: _AttributionSums,
    batch: Batch,
    predicting: Bool[Tensor, "batch position"],
    weights: Float[np.ndarray, "... batch"],
) -> None:
    """One forward and one backward pass; only the part after the layer has a graph."""
    leaves: list[Tensor] = []
    sums.begin()

    def write(layer: int, _offset: int, hidden: Tensor) -> Tensor:
        sums.see(layer, hidden.detach(), batch)
        leaves.append(hidden.detach().clone().requires_grad_())
        return leaves[-1]

    items = [sums.encoded[row] for row in batch.rows]
    with (
        model.at_boundary(Boundary.of_dialogues(items, batch.rows, model.template)),
        model.writing(write, [sums.sae.layer]),
    ):
        log_probs = next_token_log_probs(model, batch, predicting)
    row = predicting.nonzero()[:, 0].to(log_probs.device)
    explained = (log_probs * torch.tensor(weights, dtype=log_probs.dtype, device=log_probs.device)[row]).sum()
    (gradient,) = torch.autograd.grad(explained, leaves)
    sums.take(gradient, batch)
    sums.commit(batch)


@contextlib.contextmanager
def _differentiable(module: nn.Module) -> Iterator[None]:
    """Gradients on, but none for parameters, so that their inputs need not be kept."""
    changed = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in changed:
        parameter.requires_grad_(False)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(True)


def _check_pairs(misaligned: Sequence[Dialogue], aligned: Sequence[Dialogue]) -> None:
    if len(misaligned) != len(aligned):
        raise PersonaProbeError(
            f"attribute_latents was given {len(misaligned)} misaligned answers and {len(aligned)} aligned ones; give "
            "one of each for every prompt, in the same order"
        )
    for number, (one, other) in enumerate(zip(misaligned, aligned, strict=True)):
        for kind, dialogue in (("misaligned", one), ("aligned", other)):
            if dialogue.answer is None:
                raise PersonaProbeError(f"pair {number}: the {kind} dialogue {dialogue.name} has no answer")
        if one.without_answer().messages != other.without_answer().messages:
            raise PersonaProbeError(
                f"pair {number}: the misaligned dialogue {one.name} and the aligned {other.name} answer different "
                "prompts; give both lists in the same order, with the same system prompts"
            )


def _table(sums: _AttributionSums, counts: Int[np.ndarray, "... group"], n_questions: int) -> pd.DataFrame:
    result = grouped_mean(sums.sums.cpu().numpy(), counts)
    low, high = result.interval()
    live = sums.live.cpu().numpy()
    p = np.where(live, result.p_values(), np.nan)
    q = np.full_like(p, np.nan)
    tested = np.isfinite(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    order = np.argsort(-np.abs(result.mean), kind="stable")
    return (
        pd.DataFrame(
            {
                "latent": np.arange(len(p)),
                "attribution": result.mean,
                "effect_of_ablation": 0.0 - result.mean,
                "low": low,
                "high": high,
                "p": p,
                "q": q,
                "n_questions": n_questions,
            }
        )
        .iloc[order]
        .reset_index(drop=True)
    )
