"""Steering by latents: ablate, clamp, add to or scale the activations of some; the SAE's error term stays."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona_probe.errors import NUMBER, PersonaProbeError, check_types
from persona_probe.latents.latent_numbers import whole_numbers
from persona_probe.latents.sae import Sae
from persona_probe.models.model import Model
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.interventions.change import Change, StackedChange, placed
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.steer_context import Steering, steer

EditKind = Literal["ablate", "clamp", "add", "scale"]
EDIT_KINDS: tuple[str, ...] = get_args(EditKind)
_TOKENS_AT_ONCE = 2**14


@dataclass(frozen=True)
class LatentEdit:
    """A change of the activations of some latents; all others, and the SAE's error, stay as they are.

    Attributes:
        latents: the numbers of the latents; or a mapping from latents to amounts.
        kind: ``ablate`` (to zero), ``clamp`` (to the amount, also below zero, and also where the latent is silent),
            ``add`` (the amount is added everywhere) or ``scale`` (times the amount).
        amount: one amount for all latents, in units of activation; for ``scale`` a factor. Left out for ``ablate``, and
            if ``latents`` maps to amounts.
        along: for nulls, a mapping from each of ``latents`` to another latent: the displacement by the edit, of the
            same size at every token, goes along the decoder row of that latent instead.

    Examples:
        >>> import persona_probe as pp
        >>> pp.latents.LatentEdit([3, 7], "clamp", 2.0).amounts
        {3: 2.0, 7: 2.0}
    """

    latents: Sequence[int] | Mapping[int, float]
    kind: EditKind = "ablate"
    amount: float | None = None
    along: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        """Raise if the kind is unknown, or an amount is missing or not used."""
        check_types(kind=(self.kind, str), amount=(self.amount, NUMBER, None), along=(self.along, Mapping, None))
        if self.kind not in EDIT_KINDS:
            raise PersonaProbeError(f"unknown kind of latent edit {self.kind!r}: choose one of {', '.join(EDIT_KINDS)}")
        if not isinstance(self.latents, Iterable):
            raise PersonaProbeError(f"latents is {self.latents!r}; give a list of latents, or a mapping to amounts")
        given = isinstance(self.latents, Mapping) or self.amount is not None
        if given != (self.kind != "ablate"):
            raise PersonaProbeError(
                f"kind={self.kind!r} {'has no' if given else 'needs an'} amount"
                + ("; leave it out" if given else ": the activation to set, to add, or the factor")
            )
        if isinstance(self.latents, Mapping) and self.amount is not None:
            raise PersonaProbeError("give amounts either in latents={latent: amount} or as amount=, not both")
        if self.along is not None and set(self.along) != set(self.amounts):
            raise PersonaProbeError(f"along names {sorted(self.along)}, but the latents are {sorted(self.amounts)}")
        if isinstance(self.latents, Mapping):
            check_types(amounts=(list(self.latents.values()), [NUMBER]))
        for latent, amount in self.amounts.items():
            if not math.isfinite(amount):
                raise PersonaProbeError(f"the amount for latent {latent} is {amount}; it must be finite")

    @property
    def amounts(self) -> dict[int, float]:
        """The amount of each latent (0 for ``ablate``)."""
        numbers = whole_numbers(list(self.latents))
        if isinstance(self.latents, Mapping):
            return dict(zip(numbers, map(float, self.latents.values()), strict=True))
        return dict.fromkeys(numbers, float(self.amount or 0.0))

    def coefficients(self, amount: float) -> tuple[float, float]:
        """``(factor, plus)``: the new activation is ``factor * activation + plus``."""
        return {"ablate": (0.0, 0.0), "clamp": (0.0, amount), "add": (1.0, amount), "scale": (amount, 0.0)}[self.kind]


class EditLatents(Intervention):
    """The intervention that makes a `LatentEdit` at the layer that the SAE reads.

    ``h + decode(edited) - decode(encode(h))``: only the change is decoded and added, so that what the SAE does not
    explain (its error term) stays.

    Args:
        sae: the SAE, which reads and writes the output of its layer.
        edit: the change of its latents.
        scope: which tokens are edited; attention sinks and the beginning of sequence only if the scope includes them.

    Raises:
        PersonaProbeError: for a latent that does not exist.
    """

    kind = "latents"

    def __init__(self, sae: Sae, edit: LatentEdit, *, scope: str | Scope = "generation") -> None:
        check_types(sae=(sae, Sae), edit=(edit, LatentEdit))
        super().__init__(sae.layer, scope)
        sae.check_latents(list(edit.latents))
        self.sae, self.edit = sae, edit

    def check(self, model: Model, *, allow_unrelated: bool = False) -> None:
        """Raise if the model has another width or lacks the layer; `measure_reconstruction` says if the SAE fits."""
        del allow_unrelated
        self.sae.check_model(model)

    def parameters(self) -> dict[str, Any]:
        """The SAE and the edit."""
        return {"sae": self.sae.name, "edit": self.edit.kind, "latents": self.edit.amounts}

    def at(self, layer: int) -> Change:
        """The change of the stream by the edit."""
        if layer != self.sae.layer:
            raise PersonaProbeError(f"the SAE {self.sae.name} reads layer {self.sae.layer}, not layer {layer}")
        return _LatentChange(self.sae, self.edit)


@dataclass(frozen=True, eq=False)
class _LatentChange(Change):
    sae: Sae
    edit: LatentEdit

    @property
    def family(self) -> Hashable:
        return type(self), id(self.sae)

    def stacked(self, others: Sequence[Change]) -> StackedChange:
        return _Edits(self.sae, [other.edit for other in others if isinstance(other, _LatentChange)])


class _Edits(StackedChange):
    """The edits of one row or several as matrices: ``(row, column)`` factors and summands.

    A column is a latent whose activation is edited, with the latent along whose decoder row the stream is displaced.
    """

    def __init__(self, sae: Sae, edits: Sequence[LatentEdit]) -> None:
        self.sae = sae
        cells: list[tuple[int, tuple[int, int], tuple[float, float]]] = []
        for row, edit in enumerate(edits):
            along = edit.along or {}
            for latent, amount in edit.amounts.items():
                cells.append((row, (latent, along.get(latent, latent)), edit.coefficients(amount)))
        pairs = sorted({pair for _, pair, _ in cells})
        if not pairs:
            raise PersonaProbeError("steer_latents: no edit names a latent; give at least one")
        column = {pair: number for number, pair in enumerate(pairs)}
        self.latents = torch.tensor([latent for latent, _ in pairs])
        self.factor, self.plus = torch.ones(len(edits), len(pairs)), torch.zeros(len(edits), len(pairs))
        for row, pair, (factor, plus) in cells:
            self.factor[row, column[pair]], self.plus[row, column[pair]] = factor, plus
        self.directions = _directions(sae, pairs)

    def apply(
        self, hidden: Float[Tensor, "row position d_model"], setting: Int[Tensor, "... row"] | None
    ) -> Float[Tensor, "row position d_model"]:
        """The stream with the change of activations decoded and added."""
        for name in ("latents", "factor", "plus", "directions"):
            tensor: Tensor = getattr(self, name)
            (there,) = placed([tensor], hidden.device, tensor.dtype)
            setattr(self, name, there)
        rows, positions = hidden.shape[:2]
        if setting is None:
            setting = torch.zeros(rows, dtype=torch.int64, device=hidden.device)
        edit = setting[:, None].expand(rows, positions).flatten()
        at_once = _TOKENS_AT_ONCE if self.sae.separable else self.sae.tokens_at_once
        parts = zip(hidden.flatten(0, 1).split(at_once), edit.split(at_once), strict=True)
        change = torch.cat([self._change(*part) for part in parts]).view_as(hidden)
        return (hidden + change).to(hidden.dtype)

    def _change(
        self, tokens: Float[Tensor, "token d_model"], edit: Int[Tensor, "... token"]
    ) -> Float[Tensor, "token d_model"]:
        acts = self.sae.encode_some(tokens, self.latents).float()
        difference = acts * (self.factor[edit] - 1.0) + self.plus[edit]
        change: Tensor = (difference @ self.directions) * self.sae.output_scale()
        return change


def _directions(sae: Sae, pairs: Sequence[tuple[int, int]]) -> Float[Tensor, "column d_model"]:
    """The decoder row for each pair: that of the second latent, with the length of the first one's."""
    latents = sorted({latent for pair in pairs for latent in pair})
    rows = dict(zip(latents, sae.rows(latents), strict=True))
    return torch.stack(
        [rows[one] if one == other else rows[other] * (rows[one].norm() / rows[other].norm()) for one, other in pairs]
    )


@contextlib.contextmanager
def steer_latents(
    model: Model,
    sae: Sae,
    edits: LatentEdit | Sequence[LatentEdit | None],
    *,
    scope: str = "generation",
) -> Iterator[None]:
    """A context in which latents are edited in every forward pass of ``model``: `steer` with `EditLatents`.

    Args:
        model: the model that is steered; hooks are removed when the context closes, also after an error or Ctrl-C.
        sae: the SAE, which reads and writes the output of its layer.
        edits: one edit for all; or one for each dialogue (None leaves it as it is), so that many settings run as one
            batch: the i-th is for the i-th dialogue of ``model.generate`` (with ``n`` answers each, for the i-th
            answer) or of `persona_probe.capture`, in whatever batches they run.
        scope: which tokens are edited, as in `persona_probe.steer`.

    Raises:
        PersonaProbeError: for a latent that does not exist, an unknown scope, or an SAE with another width or layer;
            inside the context, if a dialogue has no edit, or a forward pass does not say where the prompt ends under a
            scope that needs it; and at its end, if fewer dialogues were read than there are edits.
    """
    check_types(model=(model, Model), sae=(sae, Sae), edits=(edits, LatentEdit, [LatentEdit, None]))
    if isinstance(edits, LatentEdit):
        steering: Steering = EditLatents(sae, edits, scope=scope)
    else:
        made = {id(edit): EditLatents(sae, edit, scope=scope) for edit in edits if edit is not None}
        steering = [None if edit is None else made[id(edit)] for edit in edits]
    with steer(model, steering):
        yield
