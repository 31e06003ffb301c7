"""Where prompts end in the batch that a model is reading: what token scopes are measured from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

import torch
from jaxtyping import Bool
from torch import Tensor

from persona_probe.dialogue.rendering import Encoded
from persona_probe.errors import PersonaProbeError
from persona_probe.models.twin import own

Scope = Literal["generation", "response", "prompt", "all"]
SCOPES: tuple[str, ...] = get_args(Scope)


def check_scope(scope: str) -> Scope:
    """Return ``scope`` if it exists, else raise an error that lists the scopes there are."""
    if scope not in SCOPES:
        raise PersonaProbeError(f"unknown scope {scope!r}: choose one of {', '.join(SCOPES)}")
    return cast(Scope, scope)


@dataclass(frozen=True)
class Boundary:
    """Per row, the padded position of the first answer token, and of the token after the last (None: open end).

    While text is being generated the end is open: every token that is fed back decides the next one. ``rows`` says
    which of the caller's dialogues each row is (with ``n`` answers each, dialogue i is i * n to i * n + n - 1), since
    batches are sorted by length; None where the caller made the batch.
    """

    starts: Tensor
    ends: Tensor | None = None
    rows: Sequence[int] | None = None

    @classmethod
    def of_generation(cls, prompt_length: int, rows: Sequence[int] | None = None) -> Boundary:
        """The boundary of a left-padded batch that is generated from: all rows begin at ``prompt_length``."""
        return cls(torch.tensor([prompt_length]), rows=rows)

    @classmethod
    def of_dialogues(cls, encoded: Sequence[Encoded], rows: Sequence[int] | None = None) -> Boundary:
        """The boundary of right-padded, finished dialogues."""
        return cls(
            torch.tensor([item.prompt_length for item in encoded]),
            # The last prompt token is in the scope of generation also where no answer follows yet.
            torch.tensor([max(item.response_end, item.prompt_length + 1) for item in encoded]),
            rows,
        )

    def mask(self, scope: Scope, offset: int, length: int, device: torch.device) -> Bool[Tensor, "row position"]:
        """Which of the positions ``offset .. offset + length`` lie in ``scope``."""
        position = torch.arange(offset, offset + length, device=device)[None, :]
        start = self.starts.to(device)[:, None]
        if scope == "all":
            return torch.ones(1, length, dtype=torch.bool, device=device)
        if scope == "prompt":
            return position < start
        inside = position >= (start - 1 if scope == "generation" else start)
        if self.ends is not None:
            end = self.ends.to(device)[:, None]
            inside = inside & (position < (end - 1 if scope == "generation" else end))
        return inside


class HasBoundary(Protocol):
    """Anything whose forwards are told where prompts end (a `Model`)."""

    boundary: Boundary | None

    def at_boundary(self, boundary: Boundary | None) -> contextlib.AbstractContextManager[None]:
        """Set ``boundary`` inside a context."""
        ...


@contextlib.contextmanager
def marking_generation(model: HasBoundary, door: Any) -> Iterator[None]:
    """While open, ``door.generate`` (a Hugging Face model's or a bridge's) sets ``model``'s boundary from its input.

    A boundary that is already set, as by ``model.generate``, is kept.

    Raises:
        PersonaProbeError: (from ``door.generate``) if the input is padded on the right, so that prompts end at
            different places, or if no token ids can be found in it.
    """
    original = door.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        if model.boundary is not None:
            return original(*args, **kwargs)
        given = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs", kwargs.get("input")))
        if isinstance(given, str | list):
            given = door.to_tokens(given, prepend_bos=kwargs.get("prepend_bos"), padding_side="left")
        if not isinstance(given, Tensor) or given.ndim != 2:
            raise PersonaProbeError("generate under steering needs token ids of shape (batch, position)")
        attention = kwargs.get("attention_mask")
        if isinstance(attention, Tensor) and not bool(attention[:, -1].all()):
            raise PersonaProbeError(
                "generate under steering: the batch is padded on the right, so its prompts end at different places; "
                "pad on the left (tokenizer.padding_side = 'left')"
            )
        with model.at_boundary(Boundary.of_generation(given.shape[1])):
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
