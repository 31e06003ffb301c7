"""What is done to the residual stream: pure functions of ``(..., d_model)`` tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import PersonaProbeError

Kind = Literal["add", "ablate", "clamp"]
KINDS: tuple[str, ...] = get_args(Kind)
Intervention = Callable[[Float[Tensor, "*rows d_model"]], Float[Tensor, "*rows d_model"]]


def add(vector: Float[Tensor, "... d_model"], strength: float) -> Intervention:
    """``h + strength * v``: the raw vector, so that strength 1 is one mean difference."""
    return lambda hidden: hidden + (strength * vector).to(hidden)


def clamp(
    vector: Float[Tensor, "... d_model"],
    target: float,
    strength: float = 1.0,
    along: Float[Tensor, "... d_model"] | None = None,
) -> Intervention:
    """Bring the projection ``h . v / ||v||`` to ``target`` (``strength`` = how much of the way, 1 = all of it).

    ``along`` is for nulls: the displacement that the clamp needs is made along this other direction instead.
    """
    unit = vector / vector.norm()
    step = unit if along is None else along / along.norm()

    def apply(hidden: Tensor) -> Tensor:
        projection: Tensor = einsum(hidden, unit.to(hidden), "... d, d -> ...")
        moved: Tensor = hidden + (strength * (target - projection))[..., None] * step.to(hidden)
        return moved

    return apply


def ablate(vector: Float[Tensor, "... d_model"]) -> Intervention:
    """Take the component along ``v`` out: the projection becomes zero."""
    return clamp(vector, 0.0)


def make(
    kind: str,
    vector: Float[Tensor, "... d_model"],
    strength: float,
    target: float | None,
    along: Float[Tensor, "... d_model"] | None = None,
) -> Intervention:
    """The intervention called ``kind`` on one layer's vector.

    Raises:
        PersonaProbeError: for an unknown kind, a ``target`` where none is used, or none where one is needed.
    """
    if kind not in KINDS:
        raise PersonaProbeError(f"unknown kind of intervention {kind!r}: choose one of {', '.join(KINDS)}")
    if kind == "clamp":
        if target is None:
            raise PersonaProbeError("kind='clamp' needs target=, the projection to set (residual-stream units)")
        return clamp(vector, target, strength, along)
    if along is not None:
        raise PersonaProbeError(f"along= is used by kind='clamp' only, not by {kind!r}")
    if target is not None:
        raise PersonaProbeError(f"target= is used by kind='clamp' only, not by {kind!r}")
    if kind == "ablate":
        if strength != 1.0:
            raise PersonaProbeError(
                "kind='ablate' takes no strength: use kind='clamp' with target=0 to go part of the way"
            )
        return ablate(vector)
    return add(vector, strength)
