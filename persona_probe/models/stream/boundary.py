"""Where prompts end in the batch that a model is reading; token scopes are counted from there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor, nn

from persona_probe.dialogue.encoding import Encoded
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.dialogue.turn_spans import turn_span
from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.scope import Scope, decides
from persona_probe.models.twin import mark_as_ours

_OPEN = np.iinfo(np.int64).max
"""The end of a row that is still being generated."""


@dataclass(frozen=True, eq=False)
class Boundary:
    """Where each row of a batch begins and ends, and where its answer begins and ends, in padded positions.

    All arrays are on the host, so that the tokens of a scope are known without waiting for a GPU.

    Attributes:
        begins: position of the first token that is not padding.
        starts: position of the first answer token.
        ends: position after the answer's last content token; open while text is being generated, since every token
            that is fed back then decides the next one.
        stops: position after the last token.
        rows: which of the caller's dialogues each row is (with ``n`` answers each, dialogue i has the numbers i * n to
            i * n + n - 1), since batches are sorted by length; None where the caller made the batch.
        encoded: the dialogues, which the scope ``turn`` needs.
        template: the chat template that they were encoded with.
        total: how many dialogues (times ``n``) there are in all batches together, if that is known.
    """

    begins: Int[np.ndarray, "... row"]
    starts: Int[np.ndarray, "... row"]
    ends: Int[np.ndarray, "... row"]
    stops: Int[np.ndarray, "... row"]
    rows: Sequence[int] | None = None
    encoded: Sequence[Encoded] | None = field(default=None, repr=False)
    template: ChatTemplate | None = field(default=None, repr=False)
    total: int | None = None
    _turns: dict[tuple[int, int], slice] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of_prompts(
        cls,
        lengths: Sequence[int] | Int[np.ndarray, "... row"],
        width: int,
        rows: Sequence[int] | None = None,
        encoded: Sequence[Encoded] | None = None,
        template: ChatTemplate | None = None,
        total: int | None = None,
    ) -> Boundary:
        """The boundary of a left-padded batch to generate from: prompts of ``lengths`` tokens that end at ``width``."""
        begins = width - np.asarray(lengths, dtype=np.int64)
        starts, end = np.full_like(begins, width), np.full_like(begins, _OPEN)
        return cls(begins, starts, end, end, rows, encoded, template, total)

    @classmethod
    def of_dialogues(
        cls,
        encoded: Sequence[Encoded],
        rows: Sequence[int] | None = None,
        template: ChatTemplate | None = None,
        total: int | None = None,
    ) -> Boundary:
        """The boundary of right-padded, finished dialogues."""
        starts = np.array([item.prompt_length for item in encoded])
        # The last prompt token is in the scope ``generation`` even if no answer follows yet.
        ends = np.array([max(item.response_end, item.prompt_length + 1) for item in encoded])
        stops = np.array([len(item.input_ids) for item in encoded])
        return cls(np.zeros_like(starts), starts, ends, stops, rows, encoded, template, total)

    def mask(
        self, scope: Scope, offset: int, length: int, rows: Int[np.ndarray, "... chosen"] | None = None
    ) -> Bool[np.ndarray, "chosen position"]:
        """Which of the positions ``offset .. offset + length`` are in ``scope``; padding never is.

        Args:
            scope: which tokens.
            offset: the first position.
            length: number of positions.
            rows: the rows of the batch that are asked about; None for all.

        Raises:
            PersonaProbeError: if a row has no such position or turn, or it is not known where its turns are.
        """
        position = np.arange(offset, offset + length)[None, :]
        sides = (self.begins, self.starts, self.ends, self.stops)
        begins, starts, ends, stops = ((side if rows is None else side[rows])[:, None] for side in sides)
        real: np.ndarray = (position >= begins) & (position < stops)
        decided = decides(scope)
        if decided is not None:
            first, last = decided
            inside = (position >= starts - 1 + first) & (position < ends - 1)
            return real & (inside if last == float("inf") else inside & (position < starts - 1 + int(last)))
        if scope.kind == "response":
            return real & (position >= starts) & (position < ends)
        if scope.kind == "prompt":
            return real & (position < starts)
        asked = np.arange(len(self.begins)) if rows is None else rows
        if scope.kind == "positions":
            return real & self._at(scope.numbers, position, asked)
        return real & self._in_turn(scope.numbers[0], position, asked) if scope.kind == "turn" else real

    def _at(
        self, numbers: Sequence[int], position: Int[np.ndarray, "one position"], rows: Int[np.ndarray, "... chosen"]
    ) -> Bool[np.ndarray, "chosen position"]:
        begins, starts, stops = self.begins[rows], self.starts[rows], self.stops[rows]
        hit = np.zeros((len(rows), position.shape[1]), dtype=bool)
        for number in numbers:
            wanted = begins + number if number >= 0 else starts + number
            outside = (wanted < begins) | (wanted >= stops)
            if outside.any():
                which = int(outside.argmax())
                size = int(min(stops[which], starts[which]) - begins[which])
                raise PersonaProbeError(
                    f"scope positions: there is no position {number} in {self._named(int(rows[which]))}, whose prompt "
                    f"has {size} tokens"
                )
            hit |= position == wanted[:, None]
        return hit

    def _in_turn(
        self, turn: int, position: Int[np.ndarray, "one position"], rows: Int[np.ndarray, "... chosen"]
    ) -> Bool[np.ndarray, "chosen position"]:
        if self.encoded is None or self.template is None:
            raise PersonaProbeError(
                "scope turn: bare token ids do not say where turns begin; use model.generate or pp.capture, which are "
                "given dialogues"
            )
        for row in rows.tolist():
            # Remembered: this is asked at every generated token, and takes a rendering and a tokenization.
            if (turn, row) not in self._turns:
                self._turns[turn, row] = turn_span(self.template, self.encoded[row], turn)
        spans = [self._turns[turn, row] for row in rows.tolist()]
        first, last = (np.array([getattr(span, end) for span in spans]) for end in ("start", "stop"))
        begins = self.begins[rows]
        return (position >= (begins + first)[:, None]) & (position < (begins + last)[:, None])

    def _named(self, row: int) -> str:
        return f"row {row}" if self.encoded is None else f"dialogue {self.encoded[row].dialogue.name}"


class HasBoundary(Protocol):
    """Anything that knows where prompts end in its forward passes (a `Model`)."""

    tokenizer: Any

    @property
    def boundary(self) -> Boundary | None:
        """Where prompts end, or None."""
        ...

    def at_boundary(self, boundary: Boundary | None) -> contextlib.AbstractContextManager[None]:
        """Set ``boundary`` inside a context."""
        ...


@contextlib.contextmanager
def marking_generation(
    model: HasBoundary, generator: Any, afterwards: Callable[[], None] | None = None
) -> Iterator[None]:
    """A context in which ``generator.generate`` (of a Hugging Face model or a bridge) sets ``model``'s boundary.

    A boundary that is already set, as by ``model.generate``, is left as it is. ``afterwards`` is called after each
    generation, and also if it failed, since it may know the reason.

    Raises:
        PersonaProbeError: (from ``generator.generate``) if the input is padded on the right, so that prompts end at
            different places, or padded without a mask that says so; if no token ids are found in it; or if it continues
            from a cache, whose tokens were read earlier, steered or not.
    """
    original = generator.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        try:
            output = run(*args, **kwargs)
        except Exception:
            if afterwards is not None:
                afterwards()
            raise
        if afterwards is not None:
            afterwards()
        return output

    def run(*args: Any, **kwargs: Any) -> Any:
        if model.boundary is not None:
            return original(*args, **kwargs)
        lengths, width = _prompts(model, generator, args, kwargs)
        if isinstance(generator, nn.Module) and hasattr(generator, "generation_config"):
            # With a static cache, decoding would be compiled, and what hooks decide first would hold at every step.
            kwargs.setdefault("disable_compile", True)
        with model.at_boundary(Boundary.of_prompts(lengths, width)):
            return original(*args, **kwargs)

    replaced_before = "generate" in vars(generator)
    generator.generate = mark_as_ours(generate)
    try:
        yield
    finally:
        if replaced_before:
            generator.generate = original
        else:
            del generator.generate


def _prompts(
    model: HasBoundary, generator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Int[np.ndarray, "... row"], int]:
    """The lengths of the prompts that ``generate`` is given, and the width to which they are padded on the left."""
    cache = kwargs.get("past_key_values")
    if cache is not None and int(cache.get_seq_length()) > 0:
        raise PersonaProbeError(
            "generate under steering: past_key_values contains tokens that were read earlier, and it is unknown "
            "whether they were steered; give the whole text without a cache"
        )
    given = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs", kwargs.get("input")))
    if isinstance(given, str | list):
        texts = [given] if isinstance(given, str) else given
        each = [generator.to_tokens(text, prepend_bos=kwargs.get("prepend_bos")).shape[1] for text in texts]
        return np.array(each), max(each)
    if not isinstance(given, Tensor) or given.ndim != 2:
        raise PersonaProbeError("generate under steering needs token ids of shape (batch, position)")
    width = given.shape[1]
    attention = kwargs.get("attention_mask")
    if not isinstance(attention, Tensor):
        pad, begin = model.tokenizer.pad_token_id, model.tokenizer.bos_token_id
        if pad is not None and pad != begin and bool((given[:, 0] == pad).any() | (given[:, -1] == pad).any()):
            raise PersonaProbeError(
                "generate under steering: rows begin or end with the padding token; give attention_mask=, which says "
                "where their text begins"
            )
        return np.full(len(given), width), width
    real = attention.cpu().numpy().astype(bool)
    if not real[:, -1].all():
        raise PersonaProbeError(
            "generate under steering: the batch is padded on the right, so its prompts end at different places; pad "
            "on the left (tokenizer.padding_side = 'left')"
        )
    return width - real.argmax(axis=1), width
