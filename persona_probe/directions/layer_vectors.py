"""One vector per layer, and its linear algebra; the card of a result lists the parts that it was made from."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from persona_probe.directions.family import check_family, known_family, shared_family
from persona_probe.errors import PersonaProbeError, check_types, of_earlier_import, what_is
from persona_probe.models.stream.layers import is_whole, several_layers
from persona_probe.statistics.inputs import numeric_array

_PROVENANCE = ("model", "model_hash", "template_hash", "span", "reduce", "layer_convention")


@dataclass(frozen=True, eq=False)
class LayerVectors:
    """One vector per layer, with lengths, unit vectors, sums and multiples.

    Attributes:
        vectors: ``(layer, d_model)``, float32, raw: length carries meaning (for example of a mean difference).
        layers: the layer numbers along axis 0.
        card: model and template hash, layer convention, span, finder and its parameters, counts, checks, versions.
    """

    vectors: Float[np.ndarray, "layer d_model"]
    layers: tuple[int, ...]
    card: dict[str, Any] = field(default_factory=dict)

    # So that ``np.float64(2) * direction`` calls ``__rmul__`` instead of making an array of directions.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        """Raise if vectors do not match their layers, are not finite, or are zero at a layer; else freeze them."""
        object.__setattr__(self, "layers", checked_layers(self.layers))
        fixed = numeric_array(self.vectors, "vectors").view()
        fixed.flags.writeable = False
        object.__setattr__(self, "vectors", fixed)
        if self.vectors.ndim != 2 or self.vectors.shape[0] != len(self.layers):
            raise PersonaProbeError(
                f"direction of shape {self.vectors.shape} does not match {len(self.layers)} layers; "
                "expected (layer, d_model)"
            )
        if not np.isfinite(self.vectors).all():
            raise PersonaProbeError("direction holds values that are not finite")
        zero = [layer for layer, norm in zip(self.layers, self.norms(), strict=True) if norm == 0]
        if zero:
            raise PersonaProbeError(f"direction is zero at layer {zero[0]}: there is nothing to project on")

    @property
    def name(self) -> str:
        """Its name in tables: the given name, else its recipe or finder."""
        return str(self.card.get("name") or self.card.get("recipe") or self.card.get("finder") or "direction")

    @property
    def d_model(self) -> int:
        """Width of the residual stream that the direction belongs to."""
        return int(self.vectors.shape[1])

    def norms(self) -> Float[np.ndarray, "... layer"]:
        """Length of each layer's vector, in residual-stream units."""
        return np.linalg.norm(self.vectors, axis=1)

    def units(self) -> Float[np.ndarray, "layer d_model"]:
        """Each layer's vector at length 1."""
        return np.asarray(self.vectors / self.norms()[:, None])

    def at(self, layer: int) -> Float[np.ndarray, "... d_model"]:
        """The raw vector of one layer: a copy, which may be changed or become a tensor."""
        if layer not in self.layers:
            raise PersonaProbeError(f"the direction has no layer {layer}; it has {', '.join(map(str, self.layers))}")
        return self.vectors[self.layers.index(layer)].copy()

    def normalize(self) -> Self:
        """Every layer's vector at length 1."""
        card = {key: value for key, value in self.card.items() if key != "scale"}
        return replace(self, vectors=self.units().astype(np.float32), card={**card, "normalized": True})

    def orthogonalize_to(self, *others: Self) -> Self:
        """Every layer's vector without its components along ``others``.

        Raises:
            PersonaProbeError: if there are no others, nothing is left at a layer, or they do not belong together.
        """
        if not others:
            raise PersonaProbeError("orthogonalize_to needs at least one direction to be orthogonal to")
        left = self.vectors.astype(np.float64)
        check_types(others=(list(others), [LayerVectors]))
        for other in others:
            self.check_together(other)
        for column in range(len(self.layers)):
            basis = spanned(np.stack([other.vectors[column] for other in others]))
            left[column] -= basis.T @ (basis @ left[column])
            if np.linalg.norm(left[column]) <= 1e-6 * np.linalg.norm(self.vectors[column]):
                raise PersonaProbeError(
                    f"nothing is left of {self.name!r} at layer {self.layers[column]}: it is in the span of the others"
                )
        return self._combined(left, f"{self.name} orthogonal to {', '.join(other.name for other in others)}", *others)

    def __mul__(self, factor: float) -> Self:
        """Scaled by ``factor``; the card's checks stay, except that a negative factor reverses the AUROC."""
        if isinstance(factor, bool) or not isinstance(factor, int | float | np.number):
            return NotImplemented
        if not np.isfinite(factor) or factor == 0:
            raise PersonaProbeError(f"a direction times {factor} points nowhere; give a finite factor other than 0")
        checks = self.card.get("checks")
        if checks and factor < 0:
            checks = {**checks, **_reversed(checks)}
        scale = float(factor) * float(self.card.get("scale", 1.0))
        card = {**self.card, "scale": scale, **({"checks": checks} if checks else {})}
        return replace(self, vectors=(self.vectors * np.float32(factor)).astype(np.float32), card=card)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Self:
        """Scaled by ``1 / divisor``."""
        if isinstance(divisor, bool) or not isinstance(divisor, int | float | np.number):
            return NotImplemented
        if divisor == 0:
            raise PersonaProbeError("a direction cannot be divided by zero")
        return self * (1 / float(divisor))

    def __neg__(self) -> Self:
        """The opposite direction."""
        return self * -1.0

    def __add__(self, other: Self) -> Self:
        """The sum, layer by layer."""
        if not _is_direction(other):
            return NotImplemented
        self.check_together(other)
        return self._combined(self.vectors.astype(np.float64) + other.vectors, f"{self._term} + {other._term}", other)

    def __sub__(self, other: Self) -> Self:
        """The difference, layer by layer."""
        if not _is_direction(other):
            return NotImplemented
        self.check_together(other)
        return self._combined(self.vectors.astype(np.float64) - other.vectors, f"{self._term} - {other._term}", other)

    @property
    def _term(self) -> str:
        scale = self.card.get("scale", 1.0)
        name = f"({self.name})" if "parts" in self.card else self.name
        return name if scale == 1 else f"{scale:g} * {name}"

    def check_together(self, other: Self) -> None:
        """Raise if two directions have different layers or widths, or belong to unrelated models."""
        if self.layers != other.layers or self.d_model != other.d_model:
            raise PersonaProbeError(
                f"directions do not belong together: {self.name!r} has layers {self.layers} of width {self.d_model}, "
                f"{other.name!r} {other.layers} of width {other.d_model}"
            )
        check_family(
            self.card,
            f"{other.name!r}, of another model,",
            other.card.get("model_hash"),
            known_family(other.card),
            False,
        )

    def _combined(self, vectors: np.ndarray, expression: str, *others: Self) -> Self:
        """A direction made from others; its card has the provenance that they share, their cards, and no checks."""
        cards = [self.card, *(other.card for other in others)]
        shared = {key: self.card.get(key) for key in _PROVENANCE}
        shared = {key: value for key, value in shared.items() if all(card.get(key) == value for card in cards)}
        family = shared_family([known_family(part.card) for part in (self, *others)])
        card = {"name": expression, "finder": "algebra", **shared, "family": family, "parts": cards}
        card["unchecked"] = "it was computed from other directions"
        return type(self)(vectors.astype(np.float32), self.layers, card)


def _reversed(checks: Mapping[str, Any]) -> dict[str, Any]:
    """The AUROCs of the opposite direction, whose intervals' ends change places; it replicates where this one does."""
    turned = {"held_out_auroc": "held_out_auroc"}
    turned |= {"held_out_auroc_low": "held_out_auroc_high", "held_out_auroc_high": "held_out_auroc_low"}
    return {name: [1 - value for value in checks[other]] for name, other in turned.items() if checks.get(other)}


def _is_direction(other: object) -> bool:
    """Whether a direction can be added; one of an earlier import raises, since Python would name the same type twice.

    Raises:
        PersonaProbeError: saying so.
    """
    if of_earlier_import(other):
        raise PersonaProbeError(f"a direction cannot be combined with {what_is(other)}")
    return isinstance(other, LayerVectors)


def checked_layers(layers: int | Sequence[int]) -> tuple[int, ...]:
    """One layer number or several as plain integers.

    Raises:
        PersonaProbeError: if one is not a whole number of at least 0, or is given twice.
    """
    given = several_layers(layers)
    if not all(is_whole(layer) and layer >= 0 for layer in given) or len(set(given)) != len(given):
        raise PersonaProbeError(f"layers are {reprlib.repr(tuple(given))}; give whole numbers from 0, each once")
    return tuple(given)


def spanned(rows: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "k d_model"]:
    """An orthonormal basis of the span of ``rows``, largest component first; equal rows add one dimension."""
    _, sizes, components = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    return np.asarray(components[sizes > 1e-6 * sizes[0]])
