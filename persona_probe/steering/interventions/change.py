"""The change that an intervention makes at one layer, and several such changes in one batch."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Change(abc.ABC):
    """A change of the stream at one layer."""

    @property
    def family(self) -> Hashable:
        """The family of the change: changes of the same family can be stacked."""
        return type(self)

    @abc.abstractmethod
    def stacked(self, others: Sequence[Change]) -> StackedChange:
        """All changes ``others`` (of this family; this one is the first), stacked."""


class StackedChange(abc.ABC):
    """Several changes of the same family at one layer: each row of a batch has one of them."""

    @abc.abstractmethod
    def apply(
        self, hidden: Float[Tensor, "row position d_model"], setting: Int[Tensor, "... row"] | None
    ) -> Float[Tensor, "row position d_model"]:
        """The stream with the change ``setting[row]`` at every token; ``setting`` is None if there is one for all rows.

        Never in place, and in the dtype of ``hidden``.
        """


@dataclass(frozen=True, eq=False)
class LinearChange(Change):
    """A change that reads ``k`` projections and writes along ``k`` vectors.

    With ``c = h . read``, the stream moves by ``share * (clip(c, low, high) - c) + plus`` times ``write``: adding,
    projecting out, clamping and capping all have this form.

    Attributes:
        read: ``(k, d_model)`` vectors that are projected on, of unit length.
        write: ``(k, d_model)`` vectors that the stream is moved along.
        low: ``(k,)`` smallest projection.
        high: ``(k,)`` largest projection.
        share: ``(k,)`` how much of the way to these bounds the stream moves.
        plus: ``(k,)`` what is added in any case.
    """

    read: Float[Tensor, "k d_model"]
    write: Float[Tensor, "k d_model"]
    low: Float[Tensor, "... k"]
    high: Float[Tensor, "... k"]
    share: Float[Tensor, "... k"]
    plus: Float[Tensor, "... k"]

    @classmethod
    def adding(cls, vector: Float[Tensor, "... d_model"]) -> LinearChange:
        """The change ``h + vector``."""
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
        """The change that brings projections on ``read`` (unit length) to ``low .. high``, ``share`` of the way."""
        shares = torch.full_like(low, share)
        return cls(read, read if write is None else write, low, high, shares, torch.zeros_like(low))

    def stacked(self, others: Sequence[Change]) -> StackedChange:
        """All changes as tensors ``(setting, k, ...)``, padded with changes that do nothing."""
        return _StackedLinear([other for other in others if isinstance(other, LinearChange)])


class _StackedLinear(StackedChange):
    """Linear changes as tensors ``(setting, k, ...)``; what none of them does is not computed."""

    def __init__(self, changes: Sequence[LinearChange]) -> None:
        k = max(len(change.read) for change in changes)

        def together(name: str) -> Tensor:
            parts: list[Tensor] = [getattr(change, name).double() for change in changes]
            return torch.stack([torch.cat([part, part.new_zeros(k - len(part), *part.shape[1:])]) for part in parts])

        low, high, share = together("low"), together("high"), together("share")
        read, write = together("read"), together("write")
        added = torch.einsum("sk,skd->sd", together("plus"), write)
        # If all changes only add a vector, there is one addition per token.
        self._adds, self._reads = bool((added != 0).any()), bool((share != 0).any())
        self._sets, self._fully = torch.equal(low, high), bool((share == 1).all())
        self._aside = not torch.equal(read, write)
        self._tensors = [added[:, None]] if self._adds else []
        if self._reads:
            bounds = [low[:, None], high[:, None], share[:, None]]
            self._tensors += [read.transpose(1, 2).contiguous(), *bounds, *([write] if self._aside else [])]

    def apply(
        self, hidden: Float[Tensor, "row position d_model"], setting: Int[Tensor, "... row"] | None
    ) -> Float[Tensor, "row position d_model"]:
        # In float32, since half precision has 8 bits for a projection and would leave much of it.
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        self._tensors = placed(self._tensors, hidden.device, dtype)
        tensors = [tensor[0] if setting is None else tensor[setting] for tensor in self._tensors]
        exact = hidden.to(dtype)
        moved = exact + tensors[0] if self._adds else exact
        if self._reads:
            read, low, high, share = tensors[self._adds : self._adds + 4]
            with uncast(hidden):
                projection = exact @ read
                wanted = low if self._sets else projection.clamp(low, high)
                needed = wanted - projection if self._fully else share * (wanted - projection)
                moved = moved + needed @ (tensors[-1] if self._aside else read.mT)
        return moved.to(hidden.dtype)


def placed(tensors: list[Tensor], device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """``tensors`` on a device, the same list if they are there already; never inference tensors (without gradients)."""
    if not tensors or (tensors[0].device == device and tensors[0].dtype == dtype):
        return tensors
    with torch.inference_mode(False):
        return [tensor.to(device, dtype) for tensor in tensors]


def uncast(hidden: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context in which autocast does not turn float32 products into half precision."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return contextlib.nullcontext()
