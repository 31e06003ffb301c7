"""An intervention as changes of weights: one of low rank for each module that writes to the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.stream.guards import probe_ids
from persona_probe.models.stream.writer_search import StreamWriter
from persona_probe.models.stream.writers import Writers, check_complete, find_writers
from persona_probe.steering.interventions.ablate import Ablate
from persona_probe.steering.interventions.ablate_everywhere import AblateEverywhere
from persona_probe.steering.interventions.add import Add
from persona_probe.steering.interventions.intervention import Intervention

_COLUMNS = 4096
"""Turned into float64 at a time."""


@dataclass(frozen=True, eq=False)
class Edit:
    """What becomes of one linear layer or embedding: ``W + up @ down``, ``b + bias``, in float64.

    Attributes:
        module: its name in the model.
        down: ``(rank, n_in)``; of an embedding, one column a token.
        up: ``(d_model, rank)``.
        bias: ``(d_model,)``, or None.
    """

    module: str
    down: Float[Tensor, "rank n_in"]
    up: Float[Tensor, "d_model rank"]
    bias: Float[Tensor, "... d_model"] | None = None

    @property
    def moves_weight(self) -> bool:
        """Whether it is more than a bias."""
        return bool((self.up != 0).any())


def check_bakeable(intervention: Intervention) -> None:
    """Refuse what weights cannot compute.

    Raises:
        PersonaProbeError: with the reason.
    """
    if isinstance(intervention, Ablate):
        raise PersonaProbeError(
            "kind='ablate' takes the component out of the outputs of chosen blocks, and no weights compute that: "
            "within a block, attention's output reaches the MLP with the component in it. What orthogonalised weights "
            "compute is pp.steering.AblateEverywhere(direction, layer=...), which can be used as hooks too"
        )
    if not isinstance(intervention, Add | AblateEverywhere):
        raise PersonaProbeError(
            f"kind={intervention.kind!r} depends on the activations that it meets, which weights alone cannot do; bake "
            "pp.Add(..., scope='all') or pp.steering.AblateEverywhere"
        )
    if not intervention.scope.everywhere:
        raise PersonaProbeError(
            f"scope={str(intervention.scope)!r}: weights act on every token; bake it with scope='all', and measure it "
            "so first, since steering the prompt too changes what it does"
        )


def edits_of(intervention: Intervention, model: Model) -> list[Edit]:
    """The edits that make ``model``'s weights do what ``intervention`` does by hooks.

    Args:
        intervention: `Add` on all tokens, or `AblateEverywhere`.
        model: without adapters.

    Raises:
        PersonaProbeError: where that is not exact: what is written goes through a norm (post-norm blocks), or does not
            come from linear layers (mixtures of experts).
    """
    check_bakeable(intervention)
    embedding, *blocks = find_writers(model.stream, probe_ids(model)[:1])
    names = {id(module): name for name, module in model.plain.named_modules(remove_duplicate=False)}
    if isinstance(intervention, Add):
        return [_bias(intervention, blocks[layer], names) for layer in intervention.layers_in(model)]
    assert isinstance(intervention, AblateEverywhere)  # checked above
    check_complete([embedding, *blocks])
    basis = intervention.basis.to(model.device)
    written = {
        names[id(writer.module)]: writer.module
        for place in (embedding, *blocks)
        for writer in _linear(place, place.writers, nn.Linear | Conv1D | nn.Embedding, "its weights cannot be made so")
    }
    return [_projected(name, module, basis) for name, module in written.items()]


def _bias(intervention: Add, block: Writers, names: dict[int, str]) -> Edit:
    """The vector as a bias of a layer that nothing in the block reads after it."""
    layer = block.layer
    assert layer is not None  # blocks have one
    last = [writer for writer in block.writers if writer.last]
    fitting = [writer for writer in last if writer.scale and isinstance(writer.module, nn.Linear | Conv1D)]
    if not fitting:
        _linear(block, last, nn.Linear | Conv1D, "a bias before it would not come out as the vector")
        raise PersonaProbeError(
            f"block {layer}: what {', '.join(writer.name for writer in last) or 'each module'} writes is scaled "
            "differently at each token (a gated expert), so that no bias comes out as the same vector everywhere"
        )
    chosen = next((writer for writer in fitting if getattr(writer.module, "bias", None) is not None), fitting[0])
    module: Any = chosen.module
    n_in = module.weight.shape[1] if isinstance(module, nn.Linear) else module.weight.shape[0]
    wanted = torch.from_numpy(intervention.direction.at(layer)).double() * intervention.strength
    vector = (wanted / float(chosen.scale or 1.0)).to(module.weight.device)
    return Edit(names[id(module)], vector.new_zeros(1, n_in), vector.new_zeros(len(vector), 1), vector)


def _linear(place: Writers, found: Sequence[StreamWriter], kinds: Any, so: str) -> Sequence[StreamWriter]:
    """``found``, if all are of ``kinds``."""
    for writer in found:
        if isinstance(writer.module, kinds):
            continue
        where = "the embedding" if place.layer is None else f"block {place.layer}"
        kind = type(writer.module).__name__
        shapes = [parameter.ndim for parameter in writer.module.parameters()]
        if shapes and max(shapes) < 2:
            why = f"{kind} normalises what is written ({writer.name}: a post-norm architecture)"
        else:
            why = f"{kind} ({writer.name}) is no linear layer"
        raise PersonaProbeError(f"{where}: {why}, and {so} exactly; use the intervention as hooks")
    return found


def _projected(name: str, module: Any, basis: Float[Tensor, "k d_model"]) -> Edit:
    weight = module.weight.detach()
    rows = basis.to(weight.device)
    bias = getattr(module, "bias", None)
    shift = None if bias is None else -((bias.detach().double() @ rows.T) @ rows)
    written = weight if isinstance(module, nn.Linear) else weight.T  # (d_model, n_in)
    read = torch.cat([rows @ part.double() for part in written.split(_COLUMNS, dim=1)], dim=1)
    return Edit(name, read, -rows.T, shift)
