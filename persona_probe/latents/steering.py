"""Steering by latents: ablate, clamp, add or scale the activations of some, with the SAE's error term kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from persona_probe.errors import PersonaProbeError
from persona_probe.latents.sae import Sae
from persona_probe.models.boundary import check_scope
from persona_probe.models.model import Model

EditKind = Literal["ablate", "clamp", "add", "scale"]
EDIT_KINDS: tuple[str, ...] = get_args(EditKind)


@dataclass(frozen=True)
class LatentEdit:
    """What is done to the activations of some latents; all others, and the SAE's error, stay as they are.

    Attributes:
        latents: which; or a mapping from latents to amounts.
        kind: ``ablate`` (to zero), ``clamp`` (to the amount, also below zero, and also where the latent is silent),
            ``add`` (the amount is added everywhere) or ``scale`` (times the amount).
        amount: in units of activation; of ``scale`` a factor. One for all, unless ``latents`` maps to amounts.
    """

    latents: Sequence[int] | Mapping[int, float]
    kind: EditKind = "ablate"
    amount: float | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown kind, and an amount that is missing or not used."""
        if self.kind not in EDIT_KINDS:
            raise PersonaProbeError(f"unknown kind of latent edit {self.kind!r}: choose one of {', '.join(EDIT_KINDS)}")
        given = isinstance(self.latents, Mapping) or self.amount is not None
        if given != (self.kind != "ablate"):
            raise PersonaProbeError(
                f"kind={self.kind!r} {'takes no' if given else 'needs an'} amount"
                + ("" if given else ", the activation to set, to add, or the factor")
            )
        if isinstance(self.latents, Mapping) and self.amount is not None:
            raise PersonaProbeError("give amounts either in latents={latent: amount} or as amount=, not both")

    @property
    def amounts(self) -> dict[int, float]:
        """The amount of each latent (0 for ``ablate``)."""
        if isinstance(self.latents, Mapping):
            return {int(latent): float(amount) for latent, amount in self.latents.items()}
        return {int(latent): float(self.amount or 0.0) for latent in self.latents}

    def coefficients(self, latent: int) -> tuple[float, float]:
        """``(factor, plus)``: the new activation is ``factor * activation + plus``."""
        amount = self.amounts[latent]
        return {"ablate": (0.0, 0.0), "clamp": (0.0, amount), "add": (1.0, amount), "scale": (amount, 0.0)}[self.kind]


class _Edits:
    """Edits of one row or several as matrices: ``(row, latent)`` factors and summands."""

    def __init__(self, sae: Sae, edits: Sequence[LatentEdit | None]) -> None:
        self.sae = sae
        named = sorted(
            {latent for edit in edits if edit is not None for latent in sae.check_latents(list(edit.amounts))}
        )
        if not named:
            raise PersonaProbeError("steer_latents: no row edits any latent; give at least one")
        self.latents = torch.tensor(named)
        self.factor, self.plus = torch.ones(len(edits), len(named)), torch.zeros(len(edits), len(named))
        for row, edit in enumerate(edits):
            if edit is None:
                continue
            for latent in edit.amounts:
                column = named.index(latent)
                self.factor[row, column], self.plus[row, column] = edit.coefficients(latent)
        self.directions = sae.rows(named).float()

    def apply(
        self, hidden: Float[Tensor, "batch position d_model"], rows: Sequence[int] | None
    ) -> Float[Tensor, "batch position d_model"]:
        """The stream with the change of activations decoded and added."""
        device = hidden.device
        if self.directions.device != device:
            for name in ("latents", "factor", "plus", "directions"):
                setattr(self, name, getattr(self, name).to(device))
        acts = self.sae.encode(hidden)[..., self.latents].float()
        scale = self.sae.output_scale()
        factor, plus = self.factor, self.plus
        if rows is not None:
            chosen = torch.as_tensor(rows, device=device)
            factor, plus = factor[chosen], plus[chosen]
        change = acts * (factor - 1.0)[:, None] + plus[:, None]
        moved: Tensor = hidden + ((change @ self.directions) * scale).to(hidden.dtype)
        return moved


@contextlib.contextmanager
def steer_latents(
    model: Model,
    sae: Sae,
    edits: LatentEdit | Sequence[LatentEdit | None],
    *,
    scope: str = "generation",
) -> Iterator[None]:
    """Edit latents in every forward of ``model`` inside the context: ``h + decode(edited) - decode(encode(h))``.

    Only the change is decoded and added, so that what the SAE does not explain (its error term) is kept, and an edit
    that changes nothing leaves the stream bit-identical. The batch's sinks and beginning of sequence are edited only if
    the scope covers them.

    Args:
        model: which model is steered; hooks are removed when the context closes, also after an error or Ctrl-C.
        sae: reads and writes the output of its layer.
        edits: one edit for all; or one for each dialogue (None leaves it as it is), so that many settings run as one
            batch: the i-th belongs to the i-th dialogue given to ``model.generate`` (with ``n`` answers each, to the
            i-th answer) or to `persona_probe.capture`, whatever batches they are sorted into.
        scope: ``generation``, ``response``, ``prompt`` or ``all``, as in `persona_probe.steer`.

    Raises:
        PersonaProbeError: for a latent that does not exist, an unknown scope, an SAE of another width or layer; and
            inside the context, if there are not as many edits as dialogues, or a bare forward does not say where the
            prompt ends under a scope that needs it.
    """
    where = check_scope(scope)
    sae.check_model(model)
    each = not isinstance(edits, LatentEdit)
    matrices = _Edits(sae, edits if isinstance(edits, Sequence) else [edits])
    count = len(matrices.factor)

    def write(_layer: int, offset: int, hidden: Tensor) -> Tensor:
        boundary = model.boundary
        if boundary is None and (each or where != "all"):
            raise PersonaProbeError(
                f"steering latents with scope={scope!r}{' and one edit a dialogue' if each else ''} needs to know "
                "where prompts end and which dialogue is which, and a bare forward does not say: use model.generate, "
                "model.hf.generate or pp.capture"
            )
        rows: Sequence[int] | None = None
        if each and boundary is not None:
            rows = range(hidden.shape[0]) if boundary.rows is None else boundary.rows
            if max(rows) >= count or (boundary.rows is None and len(rows) != count):
                raise PersonaProbeError(
                    f"steer_latents was given {count} edits, and dialogue {max(rows)} is being read; give one edit for "
                    "each dialogue (and answer, where each is answered n times)"
                )
        if where == "all":
            everywhere: Tensor = matrices.apply(hidden, rows)
            return everywhere
        assert boundary is not None
        inside = boundary.mask(where, offset, hidden.shape[1], hidden.device)
        if not bool(inside.any()):
            return hidden
        steered: Tensor = torch.where(inside[..., None], matrices.apply(hidden, rows), hidden)
        return steered

    with model.writing(write, [sae.layer]):
        yield
