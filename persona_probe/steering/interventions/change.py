"""What an intervention does at one layer, and how several such changes run as one batch."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Change(abc.ABC):
    """What is done to the stream at one layer."""

    @property
    def family(self) -> Hashable:
        """Changes of one family run together, as one batch."""
        return type(self)

    @abc.abstractmethod
    def stacked(self, others: Sequence[Change]) -> StackedChange:
        """All changes ``others`` (of this family; this one is the first) as one."""


class StackedChange(abc.ABC):
    """Several changes of one family at one layer: each row of a batch has one of them."""

    @abc.abstractmethod
    def apply(
        self, hidden: Float[Tensor, "row position d_model"], setting: Int[Tensor, "... row"] | None
    ) -> Float[Tensor, "row position d_model"]:
        """The stream with ``setting[row]``'s change made at every token; None where there is one for all.

        Never in place, and in ``hidden``'s dtype.
        """


@dataclass(frozen=True, eq=False)
class LinearChange(Change):
    """Reads ``k`` projections and writes along ``k`` vectors.

    With ``c = h . read``, the stream moves by ``share * (clip(c, low, high) - c) + plus`` times ``write``: adding,
    projecting out, clamping and capping are all of this form.

    Attributes:
        read: ``(k, d_model)``, unit length.
        write: ``(k, d_model)``.
        low: ``(k,)``.
        high: ``(k,)``.
        share: ``(k,)``.
        plus: ``(k,)``.
    """

    read: Float[Tensor, "k d_model"]
    write: Float[Tensor, "k d_model"]
    low: Float[Tensor, "... k"]
    high: Float[Tensor, "... k"]
    share: Float[Tensor, "... k"]
    plus: Float[Tensor, "... k"]

    @classmethod
    def adding(cls, vector: Float[Tensor, "... d_model"]) -> LinearChange:
        """``h + vector``."""
        zero, none = torch.zeros(1, dtype=vector.dtype), torch.zeros_like(vector)[None]
        return cls(none, vector[None], zero, zero, zero, zero + 1.0)

    @classmethod
    def setting(
        cls,
        read: Float[Tensor, "k d_model"],
        low: Float[Tensor, "... k"],
        high: Float[Tensor, "... k"],
        share: float = 1.0,
        write: Float[Tensor, "k d_model"] | None = None,
    ) -> LinearChange:
        """Bring projections on ``read`` (unit length) between ``low`` and ``high``, ``share`` of the way."""
        shares = torch.full_like(low, share)
        return cls(read, read if write is None else write, low, high, shares, torch.zeros_like(low))

    def stacked(self, others: Sequence[Change]) -> StackedChange:
        """All as tensors ``(setting, k, ...)``, filled up with changes of nothing."""
        return _StackedLinear([other for other in others if isinstance(other, LinearChange)])


class _StackedLinear(StackedChange):
    def __init__(self, changes: Sequence[LinearChange]) -> None:
        k = max(len(change.read) for change in changes)

        def together(name: str) -> Tensor:
            parts: list[Tensor] = [getattr(change, name).double() for change in changes]
            return torch.stack([torch.cat([part, part.new_zeros(k - len(part), *part.shape[1:])]) for part in parts])

        self._read, self._write = together("read"), together("write")
        self._low, self._high = together("low"), together("high")
        self._share, self._plus = together("share"), together("plus")
        self._reads = bool((self._share != 0).any())
        added = torch.einsum("sk,skd->sd", self._plus, self._write)
        self._adds = bool((added != 0).any())
        # Where all that is done is to add a vector, it is one sum a token.
        self._tensors = [self._read, self._write, self._low, self._high, self._share, added]
        self._placed: tuple[torch.device, torch.dtype, list[Tensor]] | None = None

    def _on(self, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        if self._placed is None or self._placed[:2] != (device, dtype):
            self._placed = (device, dtype, [tensor.to(device, dtype) for tensor in self._tensors])
        return self._placed[2]

    def apply(
        self, hidden: Float[Tensor, "row position d_model"], setting: Int[Tensor, "... row"] | None
    ) -> Float[Tensor, "row position d_model"]:
        # Half precision keeps 8 bits of a projection, which would leave much of it standing.
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        tensors = self._on(hidden.device, dtype)
        read, write, low, high, share, added = (tensor[0] if setting is None else tensor[setting] for tensor in tensors)
        exact = hidden.to(dtype)
        moved = exact + (added if setting is None else added[:, None]) if self._adds else exact
        if self._reads:
            if setting is None:
                projection = exact @ read.T
                moved = moved + (share * (projection.clamp(low, high) - projection)) @ write
            else:
                projection = torch.bmm(exact, read.transpose(1, 2))
                wanted = torch.minimum(torch.maximum(projection, low[:, None]), high[:, None])
                moved = moved + torch.bmm(share[:, None] * (wanted - projection), write)
        return moved.to(hidden.dtype)
