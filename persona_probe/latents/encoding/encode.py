"""Latent activations of many tokens, in memory that does not grow with the number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from persona_probe.activations.batching import tokens_per_batch_for
from persona_probe.activations.passes import run_pass
from persona_probe.activations.sinks import SINK_RATIO
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.latents.encoding.kept_tokens import encode_alike, kept_alike
from persona_probe.latents.encoding.latent_sums import LatentSums
from persona_probe.latents.encoding.top_examples import TopExamples
from persona_probe.latents.fit import Fit
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import LAYER_CONVENTION
from persona_probe.result import Result
from persona_probe.statistics.grouped_means import grouped_mean

if TYPE_CHECKING:
    import plotly.graph_objects as go

GROUPS = 64
"""The largest number of groups of questions: intervals need no more, and memory is groups x latents."""
EXAMPLES = 10


@dataclass(frozen=True, repr=False)
class LatentStatistics(Result):
    """How active one model's latents were in some texts; averages are over dialogues, each the mean over its tokens.

    Attributes:
        sums: ``(group, latent)`` mean activations of dialogues, summed over the group's dialogues.
        firing: ``(group, latent)`` shares of tokens at which the latent is active, summed in the same way.
        squares: ``(latent,)`` squares of the dialogues' mean activations, summed over all dialogues.
        dialogues: ``(group,)`` how many dialogues each group has.
        examples: for each latent the dialogues in which it is most active, each once.
        fit: how well the SAE reconstructs a sample of this model's activations: the first 4,096 tokens or a few more,
            which are those of the longest dialogues, because these are read first.
        tokens: how many tokens were read.
        source: model, hash, span, SAE and what its card says.
    """

    sums: Float[np.ndarray, "group latent"]
    firing: Float[np.ndarray, "group latent"]
    squares: Float[np.ndarray, "... latent"]
    dialogues: Int[np.ndarray, "... group"]
    examples: TopExamples
    fit: Fit
    tokens: int
    source: dict[str, Any]

    @property
    def mean(self) -> Float[np.ndarray, "... latent"]:
        """Mean activation of each latent."""
        average: np.ndarray = self.sums.sum(axis=0, dtype=np.float64) / self.dialogues.sum()
        return average

    @property
    def frequency(self) -> Float[np.ndarray, "... latent"]:
        """Share of tokens at which each latent is active."""
        average: np.ndarray = self.firing.sum(axis=0, dtype=np.float64) / self.dialogues.sum()
        return average

    @property
    def variance(self) -> Float[np.ndarray, "... latent"]:
        """Variance over dialogues of each latent's mean activation."""
        n = int(self.dialogues.sum())
        spread: np.ndarray = np.maximum(self.squares / n - self.mean**2, 0.0) * (n / max(n - 1, 1))
        return spread

    def to_frame(self) -> pd.DataFrame:
        """One row per latent: mean activation with its 95 % interval over groups of questions, SD, and frequency."""
        mean = grouped_mean(self.sums, self.dialogues)
        low, high = mean.interval()
        columns = {"mean": self.mean, "low": low, "high": high, "sd": np.sqrt(self.variance)}
        table = pd.DataFrame({"latent": np.arange(self.sums.shape[1]), **columns, "frequency": self.frequency})
        return table.assign(n=int(self.dialogues.sum()))

    def plot(self) -> go.Figure:
        """A histogram of how often latents are active."""
        from persona_probe.figures.latent_frequencies import latent_frequencies

        return latent_frequencies(self.to_frame(), dialogues=int(self.dialogues.sum()), tokens=self.tokens)

    def headline(self) -> str:
        """What was read, how many latents are active, and how well the SAE fits."""
        live = int((self.frequency > 0).sum())
        return (
            f"{self.source.get('sae')} in {self.source.get('model')}: {live:,} of {self.sums.shape[1]:,} latents "
            f"active in {self.tokens:,} tokens of {int(self.dialogues.sum()):,} dialogues, {1 - self.fit.fvu:.1%} of "
            "the variance explained"
        )

    def shown(self) -> pd.DataFrame:
        """The latents that are most active on average."""
        return self.to_frame().sort_values("mean", ascending=False, kind="stable")

    def __repr__(self) -> str:
        """The headline."""
        return f"LatentStatistics({self.headline()})"


def encode_latents(
    models: Sequence[Model],
    sae: Sae,
    dialogues: Sequence[Dialogue],
    span: str = "generation",
    *,
    groups: Int[np.ndarray, "... dialogue"] | None = None,
    max_groups: int = GROUPS,
    examples: int = EXAMPLES,
    sink_ratio: float | None = SINK_RATIO,
    tokens_per_batch: int | None = None,
    allow_unrelated: bool = False,
    progress: bool = False,
) -> list[LatentStatistics]:
    """The statistics of all latents of one or several models, which read ``dialogues`` in one pass.

    Activations are encoded as they stream by, ``sae.tokens_at_once`` tokens at a time, and only what is active is kept.
    Memory is the SAE, and for each model 8 bytes x groups x latents and 12 bytes x examples x latents, in addition to
    what a batch needs. The beginning-of-sequence token and attention sinks (of the first model;
    `persona_probe.activations.sinks`) are left out, since SAEs are usually trained without them.

    Args:
        models: for example before, after and control; all read the same tokens.
        sae: reads the output of its layer.
        dialogues: what the models read.
        span: which tokens.
        groups: ``(dialogue,)`` which group each dialogue belongs to, from 0; default by question (`question_groups`).
            Intervals are over groups.
        max_groups: how many groups at most, if they are made here.
        examples: number of dialogues to store for each latent.
        sink_ratio: above which ratio a token is an attention sink; sinks are kept if this is None, or if the first
            model is being steered.
        tokens_per_batch: padded tokens per forward pass.
        allow_unrelated: warn instead of refusing where the SAE does not fit.
        progress: show a bar.

    Returns:
        The statistics of each model, in order.

    Raises:
        PersonaProbeError: if the SAE has another width or layer than a model, activations are not finite (naming the
            dialogue), a model would read other tokens, or the SAE explains less than a tenth of a model's variance.
    """
    check_types(
        models=(models, [Model]),
        sae=(sae, Sae),
        dialogues=(dialogues, [Dialogue]),
        max_groups=(max_groups, WHOLE),
        examples=(examples, WHOLE),
    )
    if not models:
        raise PersonaProbeError("encode_latents: there are no models: the list is empty")
    if max_groups < 1 or examples < 0 or (sink_ratio is not None and not sink_ratio > 1):
        raise PersonaProbeError(
            f"encode_latents: max_groups={max_groups}, examples={examples}, sink_ratio={sink_ratio}; max_groups must "
            "be at least 1, examples at least 0, and sink_ratio exceed 1, or be None to keep all tokens"
        )
    for model in models:
        sae.check_model(model)
    encoded, spans = encode_alike(models, dialogues, span)
    numbers = question_groups(dialogues, max_groups) if groups is None else np.asarray(groups)
    if not np.issubdtype(numbers.dtype, np.integer):
        raise PersonaProbeError(
            f"encode_latents: groups are of type {numbers.dtype}; give each dialogue's group as a whole number from 0"
        )
    if numbers.shape != (len(dialogues),) or numbers.min() < 0:
        raise PersonaProbeError(
            f"encode_latents: groups has shape {numbers.shape} and least value {numbers.min(initial=0)}; give each of "
            f"the {len(dialogues)} dialogues a number from 0"
        )
    rules = kept_alike(models, len(encoded), sae.layer, sink_ratio)
    readers = [
        (model, LatentSums(sae, numbers, encoded, kept, examples, model.device))
        for model, kept in zip(models, rules, strict=True)
    ]
    budget = tokens_per_batch or tokens_per_batch_for(models[0].device)
    run_pass(readers, encoded, spans, tokens_per_batch=budget, progress=progress, label="latents")
    results = [_statistics(sae, model, reduction, span) for model, reduction in readers]
    for model, result in zip(models, results, strict=True):
        result.fit.check(sae, model.name, allow_unrelated=allow_unrelated)
    return results


def question_groups(dialogues: Sequence[Dialogue], max_groups: int = GROUPS) -> Int[np.ndarray, "... dialogue"]:
    """``(dialogue,)`` the group of each dialogue: one per question, or several questions per group if there are many.

    There are at most ``max_groups``. The same set of questions gives the same groups. A dialogue in which nothing is
    asked (`Dialogue.question`) counts as a question of its own.
    """
    names = [dialogue.question or f"\0{number:09}" for number, dialogue in enumerate(dialogues)]
    codes: np.ndarray = pd.factorize(np.array(names, dtype=object), sort=True)[0]
    return codes % max_groups


def _statistics(sae: Sae, model: Model, reduction: LatentSums, span: str) -> LatentStatistics:
    sums, firing, squares, groups = (
        tensor.cpu().numpy() for tensor in (reduction.sums, reduction.firing, reduction.squares, reduction.groups)
    )
    source = {
        "model": model.name,
        "model_hash": model.fingerprint(),
        "template_hash": model.template.hash(),
        "sae": sae.name,
        "layer": sae.layer,
        "layer_convention": LAYER_CONVENTION,
        "span": span,
        **({"steered": True} if model.steered else {}),
    }
    counts = np.bincount(groups, minlength=len(sums))
    return LatentStatistics(
        sums, firing, squares, counts, reduction.top.result(), reduction.fit.result(), reduction.n_tokens, source
    )
