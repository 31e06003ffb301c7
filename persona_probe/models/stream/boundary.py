"""Where prompts end in the batch that a model is reading: what token scopes are measured from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from persona_probe.dialogue.rendering import ChatTemplate, Encoded
from persona_probe.dialogue.turns import turn_span
from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.scope import Scope, decides
from persona_probe.models.twin import own

_OPEN = np.iinfo(np.int64).max
"""The end of a row that is still being written."""


@dataclass(frozen=True, eq=False)
class Boundary:
    """Per row of a batch, in padded positions: where it begins, where its answer begins and ends, and where it ends.

    All on the host, so that which tokens a scope names is known without asking a GPU.

    Attributes:
        begins: position of the first token that is no padding.
        starts: position of the first answer token.
        ends: position after the answer's last content token; while text is being generated every token that is fed
            back decides the next one, and the end is open.
        stops: position after the last token.
        rows: which of the caller's dialogues each row is (with ``n`` answers each, dialogue i is i * n to
            i * n + n - 1), since batches are sorted by length; None where the caller made the batch.
        encoded: the dialogues, which the scope ``turn`` needs.
        template: that they were encoded with.
    """

    begins: Int[np.ndarray, "... row"]
    starts: Int[np.ndarray, "... row"]
    ends: Int[np.ndarray, "... row"]
    stops: Int[np.ndarray, "... row"]
    rows: Sequence[int] | None = None
    encoded: Sequence[Encoded] | None = field(default=None, repr=False)
    template: ChatTemplate | None = field(default=None, repr=False)

    @classmethod
    def of_prompts(
        cls,
        lengths: Sequence[int] | Int[np.ndarray, "... row"],
        width: int,
        rows: Sequence[int] | None = None,
        encoded: Sequence[Encoded] | None = None,
        template: ChatTemplate | None = None,
    ) -> Boundary:
        """Of a left-padded batch that is generated from: prompts of ``lengths`` tokens all end at ``width``."""
        begins = width - np.asarray(lengths, dtype=np.int64)
        starts, end = np.full_like(begins, width), np.full_like(begins, _OPEN)
        return cls(begins, starts, end, end, rows, encoded, template)

    @classmethod
    def of_dialogues(
        cls, encoded: Sequence[Encoded], rows: Sequence[int] | None = None, template: ChatTemplate | None = None
    ) -> Boundary:
        """Of right-padded, finished dialogues."""
        starts = np.array([item.prompt_length for item in encoded])
        # The last prompt token is in the scope of generation also where no answer follows yet.
        ends = np.array([max(item.response_end, item.prompt_length + 1) for item in encoded])
        stops = np.array([len(item.input_ids) for item in encoded])
        return cls(np.zeros_like(starts), starts, ends, stops, rows, encoded, template)

    def mask(self, scope: Scope, offset: int, length: int) -> Bool[np.ndarray, "row position"]:
        """Which of the positions ``offset .. offset + length`` lie in ``scope``; padding never does.

        Raises:
            PersonaProbeError: if a row has no such position or turn, or it is not known where its turns are.
        """
        position = np.arange(offset, offset + length)[None, :]
        begins, starts, ends, stops = (side[:, None] for side in (self.begins, self.starts, self.ends, self.stops))
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
        if scope.kind == "positions":
            return real & self._at(scope.numbers, position)
        return real & self._in_turn(scope.numbers[0], position) if scope.kind == "turn" else real

    def _at(
        self, numbers: Sequence[int], position: Int[np.ndarray, "one position"]
    ) -> Bool[np.ndarray, "row position"]:
        hit = np.zeros((len(self.begins), position.shape[1]), dtype=bool)
        for number in numbers:
            wanted = self.begins + number if number >= 0 else self.starts + number
            outside = (wanted < self.begins) | (wanted >= self.stops)
            if outside.any():
                row = int(outside.argmax())
                size = int(min(self.stops[row], self.starts[row]) - self.begins[row])
                raise PersonaProbeError(
                    f"scope positions: there is no position {number} in {self._named(row)}, whose prompt has {size} "
                    "tokens"
                )
            hit |= position == wanted[:, None]
        return hit

    def _in_turn(self, turn: int, position: Int[np.ndarray, "one position"]) -> Bool[np.ndarray, "row position"]:
        if self.encoded is None or self.template is None:
            raise PersonaProbeError(
                "scope turn: bare token ids do not say where turns begin; use model.generate or pp.capture, which are "
                "given dialogues"
            )
        spans = [turn_span(self.template, item, turn) for item in self.encoded]
        first, last = (np.array([getattr(span, end) for span in spans]) for end in ("start", "stop"))
        return (position >= (self.begins + first)[:, None]) & (position < (self.begins + last)[:, None])

    def _named(self, row: int) -> str:
        return f"row {row}" if self.encoded is None else f"dialogue {self.encoded[row].dialogue.name}"


class HasBoundary(Protocol):
    """Anything whose forwards are told where prompts end (a `Model`)."""

    boundary: Boundary | None

    def at_boundary(self, boundary: Boundary | None) -> contextlib.AbstractContextManager[None]:
        """Set ``boundary`` inside a context."""
        ...


@contextlib.contextmanager
def marking_generation(model: HasBoundary, door: Any, afterwards: Callable[[], None] | None = None) -> Iterator[None]:
    """While open, ``door.generate`` (a Hugging Face model's or a bridge's) sets ``model``'s boundary from its input.

    A boundary that is already set, as by ``model.generate``, is kept. ``afterwards`` is called when it has generated.

    Raises:
        PersonaProbeError: (from ``door.generate``) if the input is padded on the right, so that prompts end at
            different places, or if no token ids can be found in it.
    """
    original = door.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        output = run(*args, **kwargs)
        if afterwards is not None:
            afterwards()
        return output

    def run(*args: Any, **kwargs: Any) -> Any:
        if model.boundary is not None:
            return original(*args, **kwargs)
        given = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs", kwargs.get("input")))
        if isinstance(given, str | list):
            given = door.to_tokens(given, prepend_bos=kwargs.get("prepend_bos"), padding_side="left")
        if not isinstance(given, Tensor) or given.ndim != 2:
            raise PersonaProbeError("generate under steering needs token ids of shape (batch, position)")
        lengths = np.full(given.shape[0], given.shape[1])
        attention = kwargs.get("attention_mask")
        if isinstance(attention, Tensor):
            if not bool(attention[:, -1].all()):
                raise PersonaProbeError(
                    "generate under steering: the batch is padded on the right, so its prompts end at different "
                    "places; pad on the left (tokenizer.padding_side = 'left')"
                )
            lengths = attention.sum(dim=1).cpu().numpy()
        with model.at_boundary(Boundary.of_prompts(lengths, given.shape[1])):
            return original(*args, **kwargs)

    had_own = "generate" in vars(door)
    door.generate = own(generate)
    try:
        yield
    finally:
        if had_own:
            door.generate = original
        else:
            del door.generate
