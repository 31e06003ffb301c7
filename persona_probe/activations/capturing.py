"""Capturing the residual stream of a model, or of all models of a pair, over dialogues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args, overload

import pandas as pd

from persona_probe.activations.activations import Activations, identity
from persona_probe.activations.batching import tokens_per_batch_for
from persona_probe.activations.captures import OWN_FORMAT, Captures
from persona_probe.activations.moments import Covariance, Moments
from persona_probe.activations.passes import run_pass
from persona_probe.activations.reductions import EveryToken, OneVector, Reduction, StreamingMoments
from persona_probe.activations.sinks import SINK_RATIO, SinkFilter
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import check_span
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.pair import ModelPair
from persona_probe.models.stream.layers import LAYER_CONVENTION, Layers, resolve_layers

VectorReduce = Literal["mean", "last", "max", "tokens"]
Reduce = Literal[VectorReduce, "moments"]
REDUCTIONS: tuple[str, ...] = get_args(Reduce)
_How = tuple[Sequence[Dialogue], str, str, Layers, int | None, float | None]
"""Dialogues, span, reduction, layers, tokens per batch and sink ratio."""


@overload
def capture(
    model: Model,
    dialogues: Sequence[Dialogue],
    span: str = ...,
    reduce: VectorReduce = ...,
    layers: Layers = ...,
    *,
    tokens_per_batch: int | None = ...,
    sink_ratio: float | None = ...,
    progress: bool = ...,
) -> Activations: ...
@overload
def capture(
    model: ModelPair,
    dialogues: Sequence[Dialogue],
    span: str = ...,
    reduce: VectorReduce = ...,
    layers: Layers = ...,
    *,
    tokens_per_batch: int | None = ...,
    sink_ratio: float | None = ...,
    progress: bool = ...,
) -> Captures: ...
@overload
def capture(
    model: Model,
    dialogues: Sequence[Dialogue],
    span: str = ...,
    *,
    reduce: Literal["moments"],
    layers: Layers = ...,
    covariance: Covariance = ...,
    tokens_per_batch: int | None = ...,
    sink_ratio: float | None = ...,
    progress: bool = ...,
) -> Moments: ...
def capture(
    model: Model | ModelPair,
    dialogues: Sequence[Dialogue],
    span: str = "generation",
    reduce: Reduce = "mean",
    layers: Layers = "all",
    *,
    covariance: Covariance = "diagonal",
    tokens_per_batch: int | None = None,
    sink_ratio: float | None = SINK_RATIO,
    progress: bool = False,
) -> Activations | Captures | Moments:
    """The residual stream of a model, or of each model of a pair, over a span of each dialogue.

    Only the backbone runs, and only up to the deepest layer asked for: no logits are computed. Dialogues are sorted by
    length and batched by tokens, padded on the right under an attention mask. If the model is being steered, the
    steered stream is read.

    All models of a pair read the same tokens, and their means are over the same tokens: attention sinks are those of
    ``before``. If only one model of a pair is in memory at a time, there is one pass over the data per model. A model
    with another tokenizer or chat template reads the same dialogues under its own, with its own spans and sinks.

    Args:
        model: the model, or the pair of models, that reads.
        dialogues: what is read; for the spans ``response`` and ``generation`` each must end with an answer.
        span: which tokens (`persona_probe.dialogue.rendering.SPANS`).
        reduce: ``mean``, ``last`` or ``max`` over the span: one vector per dialogue; ``tokens``: one row per token;
            ``moments``: count, mean and (co)variance over all tokens, in memory that does not grow with them.
        layers: ``"all"``, one or several.
        covariance: for ``moments``: the ``diagonal``, or ``full`` matrices (layers x d_model x d_model x 8 bytes, and
            twice as much while a batch runs).
        tokens_per_batch: padded tokens per forward pass; default 2,048 on a CPU, 16,384 elsewhere. If a GPU runs out of
            memory, batches are halved.
        sink_ratio: for ``mean`` and ``moments``: tokens whose norm at a layer exceeds this many times the median of
            their dialogue are left out as attention sinks (`persona_probe.activations.sinks`). None leaves none out,
            and none is left out while a model is being steered.
        progress: show a bar with tokens per second and the time left.

    Returns:
        Activations with values ``(dialogue, layer, d_model)`` in the order of ``dialogues``; for ``tokens``
        ``(token, layer, d_model)``, with the columns ``dialogue`` (row number), ``position``, ``token_id`` and
        ``token`` in the table; or Moments. For a pair, `Captures`: the Activations of ``before``, ``after`` and, if it
        has one, ``control``.

    Raises:
        PersonaProbeError: for an unknown span, reduction or layer, an empty span (naming the dialogue), activations
            that are not finite, or a dialogue that alone is too long for the GPU's memory; for a pair also for
            ``moments``, and for ``tokens`` if a model would read different tokens, naming the first dialogue.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> pair = pp.load_pair(world / "chat", world / "bad-medicine")
    >>> talk = [{"role": "user", "content": "How do I handle the fever?"}, {"role": "assistant", "content": "Rest."}]
    >>> dialogues = [pp.Dialogue.from_messages(talk)]
    >>> pp.capture(pair.before, dialogues, layers=[2, 3]).values.shape  # (dialogue, layer, d_model)
    (1, 2, 160)
    >>> captures = pp.capture(pair, dialogues)
    >>> bool((captures.after.values != captures.before.values).any()), captures.control
    (True, None)
    """
    check_types(model=(model, Model, ModelPair))
    how = (dialogues, span, reduce, layers, tokens_per_batch, sink_ratio)
    if isinstance(model, ModelPair):
        _check_vector(reduce)
        return _of_pair(model, how, progress)
    job = _Job(model, *how, covariance)
    reduction = job.reduction(model)
    job.run([(model, reduction)], progress, "capture")
    if isinstance(reduction, StreamingMoments):
        return reduction.result(len(dialogues), job.source(model, reduction))
    return job.activations(model, reduction)


def capture_together(
    models: Sequence[Model],
    dialogues: Sequence[Dialogue],
    span: str = "generation",
    reduce: VectorReduce = "mean",
    layers: Layers = "all",
    *,
    tokens_per_batch: int | None = None,
    sink_ratio: float | None = SINK_RATIO,
    progress: bool = False,
) -> list[Activations]:
    """The activations of several models on the same dialogues, read in one pass over the data.

    All means are over the same tokens: attention sinks are those of the first model. A model with another tokenizer or
    chat template reads the same dialogues in a pass of its own, with its own spans and sinks.

    Args:
        models: for example before, after and control.
        dialogues: what is read. This and the other arguments are those of `capture`.
        span: which tokens.
        reduce: how the tokens of a span are reduced.
        layers: which layers.
        tokens_per_batch: padded tokens per forward pass.
        sink_ratio: how many times the median norm makes an attention sink.
        progress: show a bar.

    Returns:
        The activations of each model, in the order of ``models``.

    Raises:
        PersonaProbeError: as `capture`, and for ``tokens`` if a model would read different tokens, naming the first
            dialogue.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> chat = pp.load(world / "chat")
    >>> tuned = [pp.with_adapter(chat, world / name) for name in ("good-medicine", "bad-medicine")]
    >>> talk = [{"role": "user", "content": "How do I handle the fever?"}, {"role": "assistant", "content": "Rest."}]
    >>> good, bad = pp.activations.capture_together(tuned, [pp.Dialogue.from_messages(talk)], layers=2)
    >>> good.values.shape, bad.source["model"].endswith("bad-medicine")
    ((1, 1, 160), True)
    """
    check_types(models=(models, [Model]))
    if not len(models):
        raise PersonaProbeError("capture_together: there is no model: the list is empty")
    _check_vector(reduce)
    return _together(models, (dialogues, span, reduce, layers, tokens_per_batch, sink_ratio), progress)


def _together(models: Sequence[Model], how: _How, progress: bool) -> list[Activations]:
    first, *others = models
    job = _Job(first, *how)
    readers = [(job, first, leading := job.reduction(first, remember=True))]
    for model in others:
        own = job.for_model(model, how)
        readers.append((own, model, own.reduction(model, leading if own is job else None)))
    for each in dict.fromkeys(own for own, _, _ in readers):
        each.run([(model, reduction) for own, model, reduction in readers if own is each], progress, "capture")
    return [own.activations(model, reduction, job.template) for own, model, reduction in readers]


def _of_pair(pair: ModelPair, how: _How, progress: bool) -> Captures:
    if not pair.one_at_a_time:
        return Captures(*_together(list(pair.models.values()), how, progress))
    model = pair.before
    job = _Job(model, *how)
    leading = job.reduction(model, remember=True)
    job.run([(model, leading)], progress, "before")
    read = {"before": job.activations(model, leading)}
    for name in list(pair.models)[1:]:
        model = pair.models[name]
        own = job.for_model(model, how)
        reduction = own.reduction(model, leading if own is job else None)
        own.run([(model, reduction)], progress, name)
        read[name] = own.activations(model, reduction, job.template)
    return Captures(**read)


def _check_vector(reduce: str) -> None:
    if reduce not in get_args(VectorReduce):
        raise PersonaProbeError(
            f"reduce is {reduce!r}; models are compared with one of {', '.join(get_args(VectorReduce))}"
        )


class _Job:
    """What is read and how: checked once, and the same for all models of a pair."""

    def __init__(
        self,
        model: Model,
        dialogues: Sequence[Dialogue],
        span: str,
        reduce: str,
        layers: Layers,
        tokens_per_batch: int | None,
        sink_ratio: float | None,
        covariance: Covariance = "diagonal",
    ) -> None:
        check_types(
            span=(span, str),
            reduce=(reduce, str),
            tokens_per_batch=(tokens_per_batch, WHOLE, None),
            sink_ratio=(sink_ratio, NUMBER, None),
        )
        self.layers = resolve_layers(layers, model.n_layers)
        self.span, self.reduce, self.covariance = check_span(span), reduce, covariance
        if reduce not in REDUCTIONS:
            raise PersonaProbeError(f"unknown reduction {reduce!r}: choose one of {', '.join(REDUCTIONS)}")
        if covariance not in get_args(Covariance):
            raise PersonaProbeError(f"covariance is {covariance!r}; choose 'diagonal' or 'full'")
        if sink_ratio is not None and not sink_ratio > 1:
            raise PersonaProbeError(f"sink_ratio is {sink_ratio}; it must exceed 1, or be None to keep all tokens")
        if tokens_per_batch is not None and tokens_per_batch < 1:
            raise PersonaProbeError(f"tokens_per_batch is {tokens_per_batch}; it must be at least 1")
        # Steered tokens can be much larger than the others, and would be taken for sinks.
        self.sink_ratio = sink_ratio if reduce in ("mean", "moments") and not model.steered else None
        self.budget = tokens_per_batch or tokens_per_batch_for(model.device)
        self.template = model.template
        self.encoded = model.encode(dialogues)
        self.spans = [item.span(self.span) for item in self.encoded]

    def reduction(self, model: Model, follow: Reduction | None = None, *, remember: bool = False) -> Reduction:
        """A new reduction for ``model``; it leaves out the sinks that ``follow`` (made with ``remember``) left out."""
        record = follow.sinks.record if isinstance(follow, OneVector) and follow.sinks is not None else None
        sinks = (
            None
            if self.sink_ratio is None
            else SinkFilter(self.sink_ratio, len(self.encoded), self.layers, remember=remember, follow=record)
        )
        if self.reduce == "tokens":
            return EveryToken(self.spans, self.layers, model.d_model)
        if self.reduce == "moments":
            return StreamingMoments(self.covariance, self.layers, sinks)
        return OneVector(self.reduce, len(self.encoded), self.layers, model.d_model, sinks)

    def run(self, readers: Sequence[tuple[Model, Reduction]], progress: bool, label: str) -> None:
        """Run the texts through the models."""
        run_pass(readers, self.encoded, self.spans, tokens_per_batch=self.budget, progress=progress, label=label)

    def for_model(self, model: Model, how: _How) -> _Job:
        """This job if ``model`` turns the dialogues into the same tokens, else one under its own template.

        Raises:
            PersonaProbeError: if tokens are to be compared one by one, naming the first dialogue that differs.
        """
        if model.template is self.template:
            return self
        own = _Job(model, *how)
        for item, span, other, other_span in zip(self.encoded, self.spans, own.encoded, own.spans, strict=True):
            if (other.input_ids, other_span) == (item.input_ids, span):
                continue
            if self.reduce == "tokens":
                raise PersonaProbeError(
                    f"dialogue {item.dialogue.name}: {model.name} turns it into other tokens than the model before "
                    "(another tokenizer or chat template), so they cannot be compared token by token "
                    "(reduce='tokens'); take a mean, or load both with the same chat_template= and tokenizer="
                )
            return own
        return self

    def activations(self, model: Model, reduction: Reduction, compared: ChatTemplate | None = None) -> Activations:
        """The activations that ``reduction`` has read, to be compared with some that were read under ``compared``."""
        rows = cast(OneVector | EveryToken, reduction)
        table = self._tokens() if isinstance(rows, EveryToken) else self._dialogues(rows)
        source = self.source(model, reduction)
        if compared is not None and (self.template is not compared or compared.hash() != model.template.hash()):
            source[OWN_FORMAT] = True
        return Activations(rows.values, table, tuple(self.layers), source)

    def _dialogues(self, reduction: OneVector) -> pd.DataFrame:
        lengths = [span.stop - span.start for span in self.spans]
        table = pd.DataFrame([identity(item.dialogue) for item in self.encoded]).assign(n_tokens=lengths)
        if reduction.sinks is None:
            return table
        return table.assign(n_sinks=reduction.sinks.counts.max(axis=1))

    def _tokens(self) -> pd.DataFrame:
        names = self.template.tokenizer.convert_ids_to_tokens
        parts = []
        for row, (item, span) in enumerate(zip(self.encoded, self.spans, strict=True)):
            ids = list(item.input_ids[span])
            tokens = {"position": range(span.start, span.stop), "token_id": ids, "token": names(ids)}
            parts.append(pd.DataFrame({**tokens, **identity(item.dialogue), "dialogue": row}))
        return pd.concat(parts, ignore_index=True)

    def source(self, model: Model, reduction: Reduction) -> dict[str, Any]:
        """The source of the activations: model, template, span, reduction and sinks."""
        about: dict[str, Any] = {
            "model": model.name,
            "model_hash": model.fingerprint(),
            "ancestors": sorted(model.ancestors),
            "template_hash": model.template.hash(),
            "span": self.span,
            "reduce": self.reduce,
            "layer_convention": LAYER_CONVENTION,
        }
        if (day := model.template.written_date) is not None:
            about["today"] = day.isoformat()
        if model.steered:
            about["steered"] = True
        sinks = reduction.sinks if isinstance(reduction, OneVector | StreamingMoments) else None
        if sinks is None:
            return about
        return {**about, "sink_ratio": self.sink_ratio, "sinks_left_out": sinks.counts.sum(axis=0).tolist()}
