"""A probe's score of every token while answers are generated."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.generation import stop_tokens
from persona_probe.models.model import Model
from persona_probe.models.twin import own
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.token_scores import probe_of

COLUMNS = ("call", "dialogue", "batch", "row", "position", "token_id", "token", "part", "score")


@dataclass
class _Batch:
    """One run of ``hf.generate``: whose prompts went in, the scores of what was read, and what came out."""

    call: int
    dialogues: list[int | None]
    real: np.ndarray
    scores: list[Tensor] = field(default_factory=list)
    output: Tensor | None = None


class TokenScores:
    """Scores gathered inside `monitor`; read `table` after generation."""

    def __init__(self, model: Model) -> None:
        self._tokenizer, self._stops = model.tokenizer, stop_tokens(model)
        self._batches: list[_Batch] = []

    @property
    def table(self) -> pd.DataFrame:
        """One row a token that the model read: its score, and whose it is.

        Columns: ``call`` (of ``generate``, from 0), ``dialogue`` (row number among the dialogues that the call
        returned; missing where ``model.hf.generate`` was called directly), ``batch`` and ``row`` in it, ``position``
        (from 0, padding not counted), ``token_id``, ``token``, ``part`` (``prompt``, with the assistant header, or
        ``response``) and ``score``. The token that ends an answer is left out; and so is the last token of an answer
        that was cut off at its greatest length, which the model never read. Interrupted batches are left out.

        Raises:
            PersonaProbeError: if what was read does not fit what came out (beam search, several sequences a prompt).
        """
        rows = [rows for number, batch in enumerate(self._batches) for rows in self._rows(number, batch)]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(COLUMNS))

    def _rows(self, number: int, batch: _Batch) -> Iterator[pd.DataFrame]:
        if batch.output is None:
            return
        scores, ids = torch.cat(batch.scores, dim=1).cpu().numpy(), batch.output.cpu().numpy()
        if scores.shape != (ids.shape[0], ids.shape[1] - 1):
            raise PersonaProbeError(
                f"monitor: the model read tokens of shape {scores.shape} and returned {ids.shape}: beam search and "
                "several sequences a prompt cannot be followed; use model.generate(..., n=)"
            )
        width = batch.real.shape[1]
        for row, (dialogue, real) in enumerate(zip(batch.dialogues, batch.real, strict=True)):
            answer = ids[row, width:-1]
            ends = np.flatnonzero(np.isin(answer, self._stops))
            length = int(ends[0]) if len(ends) else len(answer)
            kept = np.concatenate([np.flatnonzero(real), np.arange(width, width + length)])
            tokens = ids[row, kept]
            columns = {
                "call": batch.call,
                "dialogue": pd.array([dialogue] * len(kept), dtype="Int64"),
                "batch": number,
                "row": row,
                "position": np.arange(len(kept)),
                "token_id": tokens,
                "token": self._tokenizer.convert_ids_to_tokens(tokens.tolist()),
                "part": np.where(kept < width, "prompt", "response"),
                "score": scores[row, kept],
            }
            yield pd.DataFrame(columns)


@contextlib.contextmanager
def monitor(model: Model, probes: LayerProbes, *, layer: int, allow: bool = False) -> Iterator[TokenScores]:
    """Score every token that ``model`` reads while it generates inside the context.

    One product with the probe's weights a forward is all that is added, and nothing leaves the device before ``table``
    is read. If the model is being steered, the steered stream is scored. ``model.generate`` and ``model.hf.generate``
    are followed (padded on the left); bare forwards are not, nor is ``model.bridge``.

    Args:
        model: which model generates.
        probes: of that model's residual stream.
        layer: whose probe.
        allow: warn instead of refusing probes of an unrelated model.

    Yields:
        Scores, whose ``table`` is to be read after generation.

    Raises:
        PersonaProbeError: if there is no probe of ``layer``, the probes are of another width or an unrelated model, or
            (from ``generate``) a batch is padded on the right.
    """
    scores = TokenScores(model)
    follower = _Follower(model, *probe_of(probes, model, layer, allow), scores)
    with (
        _wrapped(model, "generate", follower.dialogues),
        _wrapped(model.hf, "generate", follower.batch),
        model.stream.reading(follower.read, [layer]),
    ):
        yield scores


class _Follower:
    """Knows which batch is running, and which of the caller's dialogues are in it."""

    def __init__(self, model: Model, weights: Tensor, intercept: float, scores: TokenScores) -> None:
        self._model, self._weights, self._intercept, self._scores = model, weights, intercept, scores
        self._waiting: dict[tuple[int, ...], deque[int]] = {}
        self._calls = 0
        self._running: _Batch | None = None

    def read(self, _layer: int, hidden: Tensor) -> None:
        if self._running is None:
            return
        if self._weights.device != hidden.device:
            self._weights = self._weights.to(hidden.device)
        self._running.scores.append(hidden.float() @ self._weights + self._intercept)

    def dialogues(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``model.generate``, remembering which prompt stands where: it sorts them by length, equal ones in order."""
        call = inspect.signature(original).bind(*args, **kwargs)
        call.apply_defaults()
        waiting: defaultdict[tuple[int, ...], deque[int]] = defaultdict(deque)
        for number, dialogue in enumerate(call.arguments["dialogues"]):
            n = call.arguments["n"]
            waiting[self._model.template.encode(dialogue).input_ids].extend(range(number * n, (number + 1) * n))
        self._waiting = dict(waiting)
        try:
            return original(*args, **kwargs)
        finally:
            self._waiting = {}
            self._calls += 1

    def batch(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``hf.generate``, noting what went in and what came out."""
        ids = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs"))
        if not isinstance(ids, Tensor) or ids.ndim != 2:
            raise PersonaProbeError("generate under a monitor needs token ids of shape (batch, position)")
        mask = kwargs.get("attention_mask")
        real = np.ones(ids.shape, dtype=bool) if mask is None else mask.bool().cpu().numpy()
        if not real[:, -1].all():
            raise PersonaProbeError(
                "generate under a monitor: the batch is padded on the right, so its prompts end at different places; "
                "pad on the left (tokenizer.padding_side = 'left')"
            )
        prompts = [tuple(row[kept].tolist()) for row, kept in zip(ids.cpu().numpy(), real, strict=True)]
        places = [self._waiting.get(prompt) for prompt in prompts]
        self._running = running = _Batch(self._calls, [place.popleft() if place else None for place in places], real)
        self._scores._batches.append(running)
        try:
            output = original(*args, **kwargs)
        finally:
            self._running = None
        running.output = output if isinstance(output, Tensor) else output.sequences
        return output


@contextlib.contextmanager
def _wrapped(owner: Any, name: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """While open, ``owner.name(...)`` is ``wrapper(owner's own, ...)``."""
    original, had_own = getattr(owner, name), name in vars(owner)

    @functools.wraps(original)  # a monitor within a monitor asks for its signature
    def call(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(owner, name, own(call))
    try:
        yield
    finally:
        if had_own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)
