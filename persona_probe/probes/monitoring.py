"""A probe's score of every token while answers are generated."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from persona_probe.errors import WHOLE, PersonaProbeError, PersonaProbeWarning, check_types
from persona_probe.models.generation import stop_tokens
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling
from persona_probe.models.twin import mark_as_ours
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.token_scoring import probe_of
from persona_probe.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLUMNS = ("call", "dialogue", "batch", "row", "position", "token_id", "token", "part", "score")


_ONE = ("num_beams", "num_return_sequences")
"""Generation settings that must be 1, so that each row that goes in is the row that comes out."""


@dataclass
class _Batch:
    """One run of ``hf.generate``: the prompts that went in, the scores of the tokens read, and the output."""

    dialogues: list[int | None]
    real: np.ndarray
    scores: list[Tensor] = field(default_factory=list)
    output: Tensor = field(init=False)

    def add(self, scores: Tensor) -> None:
        """Add the scores of one forward pass; without a cache it reads everything again, plus one token."""
        read = sum(part.shape[1] for part in self.scores)
        self.scores = [scores] if scores.shape[1] == read + 1 else [*self.scores, scores]

    def finish(self, output: Tensor) -> None:
        """Add the tokens that came out.

        Raises:
            PersonaProbeError: if they are not the tokens that were read.
        """
        read = (self.real.shape[0], sum(part.shape[1] for part in self.scores))
        if read != (output.shape[0], output.shape[1] - 1) or len(self.dialogues) != output.shape[0]:
            raise PersonaProbeError(
                f"generate under a monitor: the model read tokens of shape {read} and returned {tuple(output.shape)}: "
                "this way of generating cannot be followed; sample or decode greedily, one answer per row"
            )
        self.output = output


class TokenScores(Result):
    """Scores gathered inside `monitor`; read `table` after generation."""

    def __init__(self, model: Model) -> None:
        self._tokenizer, self._stops = model.tokenizer, stop_tokens(model)
        self._calls: list[list[_Batch]] = []

    @property
    def table(self) -> pd.DataFrame:
        """One row per token that the model read: its score, and where the token comes from.

        Columns: ``call`` (which call of ``generate``, the model's own or Hugging Face's, from 0), ``dialogue`` (row
        number among the dialogues that the call returned; missing where ``model.hf.generate`` was called directly),
        ``batch`` and ``row`` in it, ``position`` (from 0, padding not counted), ``token_id``, ``token``, ``part``
        (``prompt``, with the assistant header, or ``response``) and ``score``. The token that ends an answer is left
        out; and so is the last token of an answer that was cut off at its maximum length, which the model never read.
        Calls that failed are left out and not counted.
        """
        batches = ((call, batch) for call, of_call in enumerate(self._calls) for batch in of_call)
        rows = [rows for number, (call, batch) in enumerate(batches) for rows in self._rows(call, number, batch)]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(COLUMNS))

    def to_frame(self) -> pd.DataFrame:
        """The same as ``table``."""
        return self.table

    def plot(self) -> go.Figure:
        """The score along the answers: each answer, and their mean with its interval.

        Raises:
            PersonaProbeError: if nothing was generated.
        """
        from persona_probe.figures.answer_scores import answer_scores

        table = self.table
        if not len(table[table["part"] == "response"]):
            raise PersonaProbeError("monitor: no answer was scored; generate inside the context first")
        return answer_scores(table)

    def headline(self) -> str:
        """How many answers were scored, and how many have a mean score above 0."""
        table = self.table
        answers = table[table["part"] == "response"].groupby(["call", "batch", "row"])["score"].mean()
        if answers.empty:
            return "monitor: no answer was scored yet"
        return (
            f"{len(answers)} answers scored ({len(table):,} tokens, prompts included): mean score "
            f"{answers.mean():+.2f}, {int((answers > 0).sum())} answers above 0"
        )

    def _rows(self, call: int, number: int, batch: _Batch) -> Iterator[pd.DataFrame]:
        scores, ids = torch.cat(batch.scores, dim=1).cpu().numpy(), batch.output.cpu().numpy()
        width = batch.real.shape[1]
        for row, (dialogue, real) in enumerate(zip(batch.dialogues, batch.real, strict=True)):
            answer = ids[row, width:-1]
            ends = np.flatnonzero(np.isin(answer, self._stops))
            length = int(ends[0]) if len(ends) else len(answer)
            kept = np.concatenate([np.flatnonzero(real), np.arange(width, width + length)])
            tokens = ids[row, kept]
            columns = {
                "call": call,
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
def monitor(model: Model, probes: LayerProbes, *, layer: int, allow_unrelated: bool = False) -> Iterator[TokenScores]:
    """Score every token that ``model`` reads while it generates inside the context.

    This adds only one product with the probe's weights per forward pass, and nothing leaves the device before ``table``
    is read. If the model is being steered, the steered stream is scored. ``model.generate`` and ``model.hf.generate``
    are followed (padded on the left); forward passes outside of them are not, and neither is ``model.bridge``.

    Args:
        model: which model generates.
        probes: of that model's residual stream.
        layer: whose probe.
        allow_unrelated: warn instead of refusing probes of an unrelated model.

    Yields:
        Scores, whose ``table`` is to be read after generation.

    Raises:
        PersonaProbeError: if there is no probe of ``layer``, the probes are of another width or an unrelated model, or
            (from ``generate``) a batch is padded on the right, or beams or several sequences per prompt are asked for.

    Warns:
        PersonaProbeWarning: when the context closes, if no token was scored, since ``model`` did not generate inside.
    """
    check_types(model=(model, Model), probes=(probes, LayerProbes), layer=(layer, WHOLE))
    scores = TokenScores(model)
    follower = _Follower(model, *probe_of(probes, model, layer, allow_unrelated), scores)
    with (
        _wrapped(model, "generate", follower.dialogues),
        _wrapped(model.hf, "generate", follower.batch),
        model.stream.reading(follower.read, [layer]),
    ):
        yield scores
    if not follower.asked:
        warnings.warn(
            f"monitor: neither model.generate nor model.hf.generate of {model.name} was run inside the context, so "
            "that no token was scored; other forward passes, model.bridge and other models are not followed",
            PersonaProbeWarning,
            stacklevel=3,
        )


class _Follower:
    """Knows which batch is running, and which of the caller's dialogues are in it."""

    def __init__(self, model: Model, weights: Tensor, intercept: float, scores: TokenScores) -> None:
        self._model, self._weights, self._intercept, self._scores = model, weights, intercept, scores
        self._waiting: dict[tuple[int, ...], deque[int]] = {}
        self._running: _Batch | None = None
        self._call: list[_Batch] | None = None
        self.asked = False

    def read(self, _layer: int, hidden: Tensor) -> None:
        if self._running is None:
            return
        if self._weights.device != hidden.device:
            self._weights = self._weights.to(hidden.device)
        self._running.add(hidden.float() @ self._weights + self._intercept)

    @contextlib.contextmanager
    def _one_call(self) -> Iterator[list[_Batch]]:
        """The batches of the outermost call of ``generate``, which are kept if it succeeds."""
        if self._call is not None:
            yield self._call
            return
        batches: list[_Batch] = []
        self._call = batches
        try:
            yield batches
        finally:
            self._call = None
        self._scores._calls.append(batches)

    def dialogues(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``model.generate``, with a record of which prompt is where: it sorts them by length, equal ones in order."""
        call = inspect.signature(original).bind(*args, **kwargs)
        call.apply_defaults()
        waiting: defaultdict[tuple[int, ...], deque[int]] = defaultdict(deque)
        asked, sampling = call.arguments["dialogues"], call.arguments["sampling"]
        check_types(sampling=(sampling, Sampling, None))
        n = (sampling or Sampling()).n
        nothing = isinstance(asked, list | tuple) and not asked
        for number, encoded in enumerate(() if nothing else self._model.encode(asked)):
            waiting[encoded.input_ids].extend(range(number * n, (number + 1) * n))
        self._waiting = dict(waiting)
        try:
            with self._one_call():
                return original(*args, **kwargs)
        finally:
            self._waiting = {}

    def batch(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``hf.generate``, with a record of what went in and what came out."""
        self.asked = True
        ids = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs"))
        if not isinstance(ids, Tensor) or ids.ndim != 2:
            raise PersonaProbeError("generate under a monitor needs token ids of shape (batch, position)")
        config = kwargs.get("generation_config", args[1] if len(args) > 1 else None)
        for name in _ONE:
            asked = kwargs.get(name) or getattr(config or self._model.hf.generation_config, name, None) or 1
            if asked != 1:
                raise PersonaProbeError(
                    f"generate under a monitor: {name} is {asked}, but only one sequence per row can be followed; for "
                    "several answers to each prompt, use model.generate with pp.Sampling(n=...)"
                )
        mask = kwargs.get("attention_mask")
        real = np.ones(ids.shape, dtype=bool) if mask is None else mask.bool().cpu().numpy()
        if not real[:, -1].all():
            raise PersonaProbeError(
                "generate under a monitor: the batch is padded on the right, so its prompts end at different places; "
                "pad on the left (tokenizer.padding_side = 'left')"
            )
        prompts = [tuple(row[kept].tolist()) for row, kept in zip(ids.cpu().numpy(), real, strict=True)]
        places = [self._waiting.get(prompt) for prompt in prompts]
        with self._one_call() as batches:
            self._running = running = _Batch([place.popleft() if place else None for place in places], real)
            try:
                output = original(*args, **kwargs)
            finally:
                self._running = None
            running.finish(output if isinstance(output, Tensor) else output.sequences)
            batches.append(running)
        return output


@contextlib.contextmanager
def _wrapped(owner: Any, name: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """While open, ``owner.name(...)`` is ``wrapper(owner's own, ...)``."""
    original, had_own = getattr(owner, name), name in vars(owner)

    @functools.wraps(original)  # a monitor within a monitor asks for its signature
    def call(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(owner, name, mark_as_ours(call))
    try:
        yield
    finally:
        if had_own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)
