"""Steering a model: an intervention on some layers, on the tokens of a scope, for as long as a context is open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.stream.boundary import check_scope
from persona_probe.models.stream.residual_stream import resolve_layers
from persona_probe.steering.interventions import make


@contextlib.contextmanager
def steer(
    model: Model,
    direction: Direction,
    *,
    layers: int | Sequence[int] | str,
    strength: float = 1.0,
    kind: str = "add",
    target: float | Mapping[int, float] | None = None,
    scope: str = "generation",
    along: Direction | None = None,
    allow: bool = False,
) -> Iterator[None]:
    """Steer every forward of ``model`` inside the context, through whichever door.

    ``model.generate``, ``model.hf.generate``, ``model.hf(...)``, ``model.bridge`` are all steered, and `capture` reads
    the steered stream. Contexts may be nested; where two act on one layer, the inner one acts first.

    Args:
        model: which model is steered; hooks are removed when the context closes, also after an error or Ctrl-C.
        direction: vectors ``(layer, d_model)``.
        layers: where: ``"all"``, one or several.
        strength: ``add``: multiplies the raw vector; ``clamp``: how much of the way to the target.
        kind: ``add``, ``ablate`` or ``clamp``.
        target: for ``clamp``, the projection ``h . v / ||v||`` to set, one for all layers or one a layer.
        scope: ``generation`` (the last prompt token and the answer but its last token: the positions that decide what
            is said), ``response``, ``prompt`` or ``all``.
        along: for the null of ``clamp``: make the displacement that reaching the target needs along this direction
            instead (a random one), so that both move the stream equally far; one layer only.
        allow: warn instead of refusing a direction of an unrelated model of the same width.

    Raises:
        PersonaProbeError: for an unknown kind, scope or layer, a direction of another model or without that layer, or
            (inside the context) a bare forward that does not say where the prompt ends under a scope that needs it.
    """
    wanted = resolve_layers(layers, model.n_layers)
    where = check_scope(scope)
    direction.check_model(model, allow=allow)
    if along is not None and len(wanted) > 1:
        raise PersonaProbeError(
            f"along= is defined for one layer, not for {len(wanted)}: a displacement that does not move the projection "
            "would be made again at every layer"
        )
    targets = target if isinstance(target, Mapping) else dict.fromkeys(wanted, target)
    if missing := [layer for layer in wanted if layer not in targets]:
        raise PersonaProbeError(f"target has no value for layer {missing[0]}")
    interventions = {
        layer: make(
            kind,
            torch.tensor(direction.at(layer)),
            strength,
            targets[layer],
            None if along is None else torch.tensor(along.at(layer)),
        )
        for layer in wanted
    }

    def write(layer: int, offset: int, hidden: Tensor) -> Tensor:
        if where == "all":
            everywhere: Tensor = interventions[layer](hidden)
            return everywhere
        boundary = model.boundary
        if boundary is None:
            raise PersonaProbeError(
                f"steering with scope={scope!r} needs to know where the prompt ends, and a bare forward does not say: "
                "use model.generate, model.hf.generate or pp.capture, or scope='all'"
            )
        inside = boundary.mask(where, offset, hidden.shape[1], hidden.device)
        if not bool(inside.any()):
            return hidden
        steered: Tensor = torch.where(inside[..., None], interventions[layer](hidden), hidden)
        return steered

    with model.writing(write, wanted):
        yield
