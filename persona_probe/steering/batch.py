"""The batch and the forward that are running: which settings their rows have, and which tokens are acted on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.boundary import Boundary
from persona_probe.models.stream.scope import Scope


@dataclass(frozen=True)
class Hit:
    """The tokens that one group acts on: all columns from ``first`` to before ``last``, but where ``mask`` says no."""

    first: int
    last: int
    mask: Bool[Tensor, "row column"] | None
    setting: Int[Tensor, "... row"] | None


@dataclass(frozen=True)
class Batch:
    """What stays the same while one batch is read or written to.

    Attributes:
        boundary: where its prompts end.
        size: rows, with all beams.
        settings: the setting of each row.
        scopes: scopes with the rows that have them, both of the batch and, without beams, of the boundary.
        hits: of forwards of one token, by the rows that are in scope: the same ones come up token after token.
    """

    boundary: Boundary | None
    size: int
    settings: Int[np.ndarray, "... row"]
    scopes: Sequence[tuple[Scope, Bool[np.ndarray, "... row"], Int[np.ndarray, "... prompt"]]]
    hits: dict[bytes, dict[Hashable, Hit | None]] = field(default_factory=dict)


@dataclass
class Forward:
    """What is known of the forward that is running: which tokens are acted on.

    Attributes:
        batch: whose rows they are.
        offset: position of the first token.
        length: how many tokens each row has.
        inside: the tokens in the scope of their row's setting.
        hits: what was worked out for groups so far.
        open: where gates are open, as far as their layers have been read; None while there is no gate.
    """

    batch: Batch
    offset: int
    length: int
    inside: Bool[np.ndarray, "row position"]
    hits: dict[Hashable, Hit | None]
    open: Bool[Tensor, "row position"] | None = None


def is_of(batch: Batch, boundary: Boundary | None, size: int) -> bool:
    """Whether a forward of ``size`` rows at ``boundary`` is one of ``batch``."""
    return batch.boundary is boundary and batch.size == size


def tokens_inside(batch: Batch, offset: int, length: int) -> Bool[np.ndarray, "row position"]:
    """The tokens in the scope of their row's setting."""
    inside = np.zeros((batch.size, length), dtype=bool)
    for scope, rows, prompts in batch.scopes:
        if batch.boundary is None:
            inside[rows] = True
        else:
            # Rows with other scopes are not asked: they need not have the positions or turns that this one names.
            some = None if len(prompts) == len(batch.boundary.begins) else prompts
            mask = batch.boundary.mask(scope, offset, length, some)
            inside[rows] = np.repeat(mask, int(rows.sum()) // len(prompts), axis=0)
    return inside


def copies_of(held: int, batch: int) -> int:
    """How often each row stands in the batch: beams and several sequences a prompt are copies side by side.

    Raises:
        PersonaProbeError: if the batch holds no whole number of copies.
    """
    if batch % held:
        raise PersonaProbeError(
            f"steering: a batch of {batch} rows is being read where {held} prompts were given; this way of generating "
            "cannot be followed"
        )
    return batch // held
