"""What latents fire for: their activation in each dialogue, and how well it separates the values of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.activations.batching import tokens_per_batch_for
from persona_probe.activations.passes import run_pass
from persona_probe.activations.reductions import Batch
from persona_probe.activations.sinks import SINK_RATIO
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded
from persona_probe.errors import NUMBER, PersonaProbeError, check_types
from persona_probe.latents.description.describe_result import FIRING_COLUMNS
from persona_probe.latents.encoding.kept_tokens import KeptTokens, encode_alike, kept_alike
from persona_probe.latents.encoding.latent_sums import FIT_SAMPLE, LatentReduction
from persona_probe.latents.fit import RunningFit
from persona_probe.latents.latent_numbers import whole_numbers
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.statistics.auroc import auroc_estimate
from persona_probe.statistics.inputs import real_array

Reduce = Literal["mean", "max"]


class PickedLatents(LatentReduction):
    """Reads a few latents at the kept tokens."""

    def __init__(self, sae: Sae, encoded: Sequence[Encoded], kept: KeptTokens, latents: Sequence[int]) -> None:
        super().__init__(sae, encoded, kept)
        self.latents = sae.check_latents(latents)

    def picked(self, tokens: Float[Tensor, "token d_model"]) -> Float[Tensor, "token latent"]:
        """The activations of the wanted latents."""
        wanted = torch.tensor(self.latents, device=tokens.device)
        parts = tokens.split(self.sae.tokens_at_once)
        return torch.cat([self.sae.encode_some(part, wanted).float() for part in parts])


class _SpanLatents(PickedLatents):
    """Mean or maximum over the span: ``values`` is ``(dialogue, latent)``."""

    def __init__(
        self, sae: Sae, encoded: Sequence[Encoded], kept: KeptTokens, latents: Sequence[int], how: Reduce
    ) -> None:
        super().__init__(sae, encoded, kept, latents)
        self.how = how
        self.values = np.zeros((len(encoded), len(self.latents)), dtype=np.float32)
        self.fit = RunningFit()

    def see(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """Reduce each dialogue's kept tokens (every dialogue has at least one)."""
        tokens, places = self.tokens(layer, hidden, batch)
        self._pending[layer] = (self._reduced(tokens, places[:, 0], len(batch.rows)), self._sampled(tokens))

    def _sampled(self, tokens: Float[Tensor, "token d_model"]) -> list[tuple[Tensor, Tensor, int]]:
        """What the fit is computed from: all latents at the first tokens, and what they decode to."""
        some = tokens[: FIT_SAMPLE - self.fit.tokens] if self.fit.tokens < FIT_SAMPLE else tokens[:0]
        return [(part, self.sae.decode(acts), int(acts.count_nonzero())) for _, part, acts in self.chunks(some)]

    def _reduced(
        self, tokens: Float[Tensor, "token d_model"], row: Int[Tensor, "... token"], n_rows: int
    ) -> Float[Tensor, "row latent"]:
        acts = self.picked(tokens)
        shape = (n_rows, len(self.latents))
        if self.how == "max":
            lowest = torch.full(shape, -torch.inf, device=acts.device)
            return lowest.scatter_reduce(0, row[:, None].expand_as(acts), acts, "amax")
        counts = torch.bincount(row, minlength=n_rows).float()[:, None]
        return torch.zeros(shape, device=acts.device).index_add(0, row, acts) / counts

    def commit(self, batch: Batch) -> None:
        """Put the dialogues in their rows."""
        ((reduced, sampled),) = self._pending.values()
        self.values[batch.rows] = reduced.cpu().numpy()
        for part, reconstructed, active in sampled:
            self.fit.add(part, reconstructed, active)
        self.kept.commit(batch.rows)


def kept_by_rule(sae: Sae, model: Model, n_dialogues: int, sink_ratio: float | None) -> KeptTokens:
    """The tokens that `persona_probe.latents.encode_latents` keeps of one model."""
    (kept,) = kept_alike([model], n_dialogues, sae.layer, sink_ratio)
    return kept


def latent_activations(
    model: Model,
    sae: Sae,
    dialogues: Sequence[Dialogue],
    latents: Sequence[int],
    span: str = "generation",
    reduce: Reduce = "mean",
    *,
    sink_ratio: float | None = SINK_RATIO,
    tokens_per_batch: int | None = None,
    allow_unrelated: bool = False,
    progress: bool = False,
) -> Float[np.ndarray, "dialogue latent"]:
    """How strongly each latent is active in each dialogue.

    Args:
        model: whose residual stream is read.
        sae: reads the output of its layer.
        dialogues: what the model reads.
        latents: which latents.
        span: which tokens; the beginning of sequence and attention sinks are left out.
        reduce: ``mean`` or ``max`` over the span's tokens.
        sink_ratio: above which ratio a token is an attention sink (`persona_probe.activations.sinks`); None keeps them.
        tokens_per_batch: padded tokens per forward pass.
        allow_unrelated: warn instead of refusing where the SAE does not fit.
        progress: show a bar.

    Returns:
        ``(dialogue, latent)`` activations, in the order of ``dialogues`` and ``latents``.

    Raises:
        PersonaProbeError: for an unknown ``reduce`` or latent, an SAE of another width, a span that is empty, or an
            SAE that leaves more than 90 % of the variance of the first 4,096 tokens unexplained.
    """
    check_types(model=(model, Model), sae=(sae, Sae), dialogues=(dialogues, [Dialogue]))
    if reduce not in get_args(Reduce):
        raise PersonaProbeError(f"reduce is {reduce!r}; choose one of {', '.join(get_args(Reduce))}")
    sae.check_model(model)
    encoded, spans = encode_alike([model], dialogues, span)
    reduction = _SpanLatents(sae, encoded, kept_by_rule(sae, model, len(encoded), sink_ratio), latents, reduce)
    budget = tokens_per_batch or tokens_per_batch_for(model.device)
    run_pass([(model, reduction)], encoded, spans, tokens_per_batch=budget, progress=progress, label="latents")
    reduction.fit.result().check(sae, model.name, allow_unrelated=allow_unrelated)
    return reduction.values


def firing_by(
    values: Float[np.ndarray, "dialogue latent"],
    dialogues: Sequence[Dialogue] | pd.DataFrame,
    labels: Sequence[str] = ("persona", "topic"),
    *,
    latents: Sequence[int] | None = None,
    groups: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """How well each latent's activation separates one value of a label from all others, as an AUROC.

    Args:
        values: ``(dialogue, latent)`` activations, as from `latent_activations`.
        dialogues: the dialogues that were read, with their labels; or a table with one row per dialogue.
        labels: which labels of the dialogues (or columns of the table). Rows without a label are left out for it.
        latents: the latents' numbers; default 0, 1, ...
        groups: ``(dialogue,)`` what intervals are over; default the question (of a table: its column ``question``, if
            it has one); a row without a question is a group of its own.
        level: nominal coverage.

    Returns:
        One row per latent, label and value: ``latent``, ``label``, ``value``, ``auroc`` (0.5: no relation), its
        interval ``low`` to ``high`` (`persona_probe.statistics.auroc.auroc_estimate`), and ``n`` dialogues with the
        value.

    Raises:
        PersonaProbeError: if shapes differ, a label is unknown, or all dialogues have the same value of it.

    Examples:
        Latent 0 is active when the villain speaks, latent 1 is not related to the speaker.

        >>> table = pd.DataFrame({"persona": ["villain", "villain", "sage", "sage"]})
        >>> values = np.array([[0.9, 0.1], [0.8, 0.3], [0.0, 0.2], [0.1, 0.2]])
        >>> firing_by(values, table, ["persona"])[["latent", "value", "auroc", "n"]]
           latent    value  auroc  n
        0       0     sage    0.0  2
        1       1     sage    0.5  2
        2       0  villain    1.0  2
        3       1  villain    0.5  2
    """
    check_types(labels=(labels, [str]), level=(level, NUMBER), dialogues=(dialogues, [Dialogue], pd.DataFrame))
    values = real_array(values, "values", ("dialogue", "latent"))
    numbers = list(range(values.shape[1])) if latents is None else whole_numbers(latents)
    if values.shape != (len(dialogues), len(numbers)):
        raise PersonaProbeError(
            f"firing_by: values has shape {values.shape}; with {len(dialogues)} dialogues and {len(numbers)} latents "
            f"it must be ({len(dialogues)}, {len(numbers)})"
        )
    columns = label_columns(dialogues, labels)
    grouped = _questions(dialogues) if groups is None else np.asarray(groups)
    rows = []
    for label, column in columns.items():
        known = column.notna().to_numpy()
        names, acts, groups_known = column[known].astype(str).to_numpy(), values[known], grouped[known]
        for name in sorted(set(names)):
            truth = names == name
            for place, latent in enumerate(numbers):
                auroc = auroc_estimate(acts[:, place], truth, groups=groups_known, level=level)
                rows.append((latent, label, name, auroc.value, auroc.low, auroc.high, int(truth.sum())))
    return pd.DataFrame(rows, columns=list(FIRING_COLUMNS))


def label_columns(dialogues: Sequence[Dialogue] | pd.DataFrame, labels: Sequence[str]) -> dict[str, pd.Series]:
    """Each label's values, one per dialogue.

    Raises:
        PersonaProbeError: if no dialogue has a label, or all have the same value of it.
    """
    if isinstance(dialogues, pd.DataFrame):
        table = dialogues
    else:
        table = pd.DataFrame([dict(dialogue.labels) for dialogue in dialogues], index=range(len(dialogues)))
    columns = {}
    for label in labels:
        if label not in table or table[label].isna().all():
            raise PersonaProbeError(
                f"no dialogue has the label {label!r}; there are {', '.join(map(str, table.columns)) or 'none'}"
            )
        if table[label].dropna().astype(str).nunique() < 2:
            raise PersonaProbeError(
                f"all dialogues have {label}={table[label].dropna().iloc[0]!r}, so there is nothing to separate; "
                "give dialogues with at least two values, or leave the label out"
            )
        columns[label] = table[label].reset_index(drop=True)
    return columns


def _questions(dialogues: Sequence[Dialogue] | pd.DataFrame) -> npt.NDArray[np.object_]:
    """``(dialogue,)`` questions; a dialogue without one is a group of its own."""
    if isinstance(dialogues, pd.DataFrame):
        asked = dialogues["question"].tolist() if "question" in dialogues else [None] * len(dialogues)
    else:
        asked = [dialogue.question for dialogue in dialogues]
    return np.array([f"\0{i}" if pd.isna(name) else str(name) for i, name in enumerate(asked)], dtype=object)
