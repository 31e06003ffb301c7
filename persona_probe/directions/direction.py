"""A persona direction: one vector a layer, and the card that says where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.directions import files
from persona_probe.directions.family import check_family, family_of, shared_family
from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.layer_convention import LAYER_CONVENTION

if TYPE_CHECKING:
    import pandas as pd

    from persona_probe.models.model import Model

_FORMAT = "persona-probe direction 2"
_DERIVED = ("layers", "d_model", "norms")
_PROVENANCE = ("model", "model_hash", "template_hash", "span", "reduce", "layer_convention")


@dataclass(frozen=True, eq=False)
class Direction:
    """Per-layer vectors with their card.

    Directions of related models add, subtract and scale (``2 * evil - warm``); the card keeps the parts.

    Attributes:
        vectors: ``(layer, d_model)``, float32, raw: length carries meaning (a mean difference, say).
        layers: the layer numbers along axis 0.
        card: model and template hash, layer convention, span, finder and its parameters, counts, checks, versions.
    """

    vectors: Float[np.ndarray, "layer d_model"]
    layers: tuple[int, ...]
    card: dict[str, Any] = field(default_factory=dict)

    # So that ``np.float64(2) * direction`` asks us, instead of making an array of directions.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        """Refuse vectors that do not match their layers, are not finite, or are zero at a layer; then freeze them."""
        object.__setattr__(self, "layers", checked_layers(self.layers))
        fixed = np.asarray(self.vectors).view()
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

    @classmethod
    def from_vectors(
        cls, vectors: Float[np.ndarray, "layer d_model"] | Any, model: Model, *, layers: Sequence[int] | None = None
    ) -> Direction:
        """Make a direction of your own vectors for ``model``, one a layer.

        Raises:
            PersonaProbeError: if the shape is not ``(n_layers, d_model)`` of that model.
        """
        detached = vectors.detach().cpu().float().numpy() if hasattr(vectors, "detach") else vectors
        array = np.array(detached, dtype=np.float32)
        numbers = tuple(layers) if layers is not None else tuple(range(model.n_layers))
        if array.shape != (len(numbers), model.d_model):
            raise PersonaProbeError(
                f"vectors have shape {array.shape}; {model.name} needs ({len(numbers)}, {model.d_model}): "
                "one row a layer, counted from 0, without the embedding"
            )
        return cls(array, numbers, {"finder": "given", **card_of_model(model)})

    @property
    def name(self) -> str:
        """What tables call it: its given name, else its recipe or finder."""
        return str(self.card.get("name") or self.card.get("recipe") or self.card.get("finder") or "direction")

    @property
    def d_model(self) -> int:
        """Width of the residual stream the direction lives in."""
        return int(self.vectors.shape[1])

    def __repr__(self) -> str:
        """Name, layers and width, and what its checks say."""
        line = f"Direction({self.name!r}, {len(self.layers)} layers, d_model={self.d_model}"
        agreement = (self.card.get("checks") or {}).get("split_half_cosine")
        if agreement:
            best = int(np.argmax(agreement))
            line += f", split-half cosine up to {agreement[best]:.2f} (layer {self.layers[best]})"
        return line + ")"

    def norms(self) -> Float[np.ndarray, "... layer"]:
        """Length of each layer's vector, in residual-stream units."""
        return np.linalg.norm(self.vectors, axis=1)

    def units(self) -> Float[np.ndarray, "layer d_model"]:
        """Each layer's vector at length 1."""
        return np.asarray(self.vectors / self.norms()[:, None])

    def at(self, layer: int) -> Float[np.ndarray, "... d_model"]:
        """The raw vector of one layer; a copy, free to be changed and to become a tensor."""
        if layer not in self.layers:
            raise PersonaProbeError(f"the direction has no layer {layer}; it has {', '.join(map(str, self.layers))}")
        return self.vectors[self.layers.index(layer)].copy()

    def select(self, layers: Sequence[int]) -> Direction:
        """The same direction at some of its layers, with the card's checks of those."""
        wanted = checked_layers(layers)
        vectors = np.stack([self.at(layer) for layer in wanted])
        columns = [self.layers.index(layer) for layer in wanted]
        checks = {
            name: [figures[column] for column in columns] if isinstance(figures, list) else figures
            for name, figures in (self.card.get("checks") or {}).items()
        }
        return Direction(
            vectors, wanted, {**self.card, "checks": checks or None} if "checks" in self.card else self.card
        )

    def project(self, activations: Activations, *, allow: bool = False) -> Float[np.ndarray, "dialogue layer"]:
        """Projection ``h . v / ||v||`` of each dialogue at each captured layer, in residual-stream units.

        Args:
            activations: of the model the direction was found in, or of one made from it.
            allow: warn instead of refusing activations of an unrelated model.

        Raises:
            PersonaProbeError: for another width, a layer the direction lacks, or an unrelated model.
        """
        self._check_activations(activations, allow)
        units = np.stack([self.at(layer) for layer in activations.layers])
        units = units / np.linalg.norm(units, axis=1, keepdims=True)
        return np.asarray(np.einsum("nld,ld->nl", activations.values, units))

    def _check_activations(self, activations: Activations, allow: bool) -> None:
        if activations.values.shape[2] != self.d_model:
            raise PersonaProbeError(
                f"activations have d_model={activations.values.shape[2]}, the direction {self.d_model}: "
                "they belong to different models"
            )
        source = activations.source
        check_family(self.card, str(source.get("model")), source.get("model_hash"), family_of(source), allow)

    def check_model(self, model: Model, *, allow: bool = False) -> None:
        """Refuse ``model`` if the direction is of another width, or of a model that is not related to it.

        Raises:
            PersonaProbeError: naming both; with ``allow``, an unrelated model of the same width is a warning.
        """
        if self.d_model != model.d_model:
            raise PersonaProbeError(
                f"the direction has d_model={self.d_model}, {model.name} has {model.d_model}: it is another model's"
            )
        if self.card.get("family") or self.card.get("model_hash"):
            fingerprint = model.fingerprint()
            check_family(self.card, model.name, fingerprint, sorted({fingerprint, *model.ancestors}), allow)

    def steer(
        self, model: Model, *, layers: int | Sequence[int] | str, **settings: Any
    ) -> AbstractContextManager[None]:
        """Steer ``model`` along this direction inside a context: ``with (2.0 * evil - warm).steer(model, layers=12):``.

        Args:
            model: which model.
            layers: where.
            **settings: ``kind``, ``strength``, ``target``, ``scope`` and the others of `persona_probe.steer`.
        """
        # Said here for reading's sake; rooms below this one are not imported before it is called.
        from persona_probe.steering.steer import steer

        return steer(model, self, layers=layers, **settings)

    def increments(self) -> Direction:
        """What each layer adds to the one before: ``v_l - v_(l-1)``, the first layer as it is.

        Added at all layers at once, every layer's stream is moved by its own vector once, and not by those of all
        layers before it as well (the all-layer steering of Chen et al. 2025, "Persona vectors", arXiv:2507.21509).

        Raises:
            PersonaProbeError: if layers are missing in between, or two neighbours are equal.
        """
        if list(self.layers) != list(range(self.layers[0], self.layers[0] + len(self.layers))):
            raise PersonaProbeError(f"increments need neighbouring layers; {self.name!r} has {self.layers}")
        vectors = np.diff(self.vectors.astype(np.float64), axis=0, prepend=0.0)
        return self._combined(vectors, f"increments of {self.name}")

    def adopted_by(self, model: Model) -> Direction:
        """The same direction, to be used on ``model`` too, though nothing shows that it is related.

        For those who know that the residual streams share a basis: the same weights in another precision, a model made
        from it elsewhere. The card says who adopted it.

        Raises:
            PersonaProbeError: if the widths differ.
        """
        if self.d_model != model.d_model:
            raise PersonaProbeError(f"the direction has d_model={self.d_model}, {model.name} has {model.d_model}")
        family = sorted({*_family(self), model.fingerprint()})
        adopters = [*self.card.get("adopted_by", ()), model.name]
        return replace(self, card={**self.card, "family": family, "adopted_by": adopters})

    def top_tokens(self, model: Model, *, allow: bool = False, **options: Any) -> pd.DataFrame:
        """The tokens the direction promotes and suppresses; see `persona_probe.directions.unembedding.top_tokens`."""
        from persona_probe.directions.unembedding import top_tokens

        self.check_model(model, allow=allow)
        return top_tokens(self, model, **options)

    def best_layer(self, by: str = "held_out_auroc") -> int:
        """The layer with the largest ``by``.

        Args:
            by: ``held_out_auroc``, ``split_half_cosine`` (both from the card's checks) or ``norm``. Choosing by
                amplification needs the model after: `persona_probe.amplification`.

        Raises:
            PersonaProbeError: if the card has no such figure.
        """
        if by == "norm":
            return self.layers[int(self.norms().argmax())]
        figures = (self.card.get("checks") or {}).get(by)
        if by not in ("held_out_auroc", "split_half_cosine") or figures is None:
            raise PersonaProbeError(
                f"the card of {self.name!r} has no {by!r}; choose 'norm', or 'held_out_auroc' or 'split_half_cosine' "
                "of a direction found with repeats above 0 on enough questions"
            )
        # A direction turned round separates as well as before, with the AUROC on the other side of one half.
        sizes = np.abs(np.asarray(figures) - 0.5) if by == "held_out_auroc" else np.asarray(figures)
        return self.layers[int(sizes.argmax())]

    def normalize(self) -> Direction:
        """Every layer's vector at length 1."""
        card = {key: value for key, value in self.card.items() if key != "scale"}
        return replace(self, vectors=self.units().astype(np.float32), card={**card, "normalized": True})

    def orthogonalize_to(self, *others: Direction) -> Direction:
        """What is left of every layer's vector when its components along ``others`` are taken out.

        Raises:
            PersonaProbeError: if there are no others, nothing is left at a layer, or they do not belong together.
        """
        if not others:
            raise PersonaProbeError("orthogonalize_to needs at least one direction to be orthogonal to")
        left = self.vectors.astype(np.float64)
        for other in others:
            self.check_together(other)
        for column in range(len(self.layers)):
            basis = spanned(np.stack([other.vectors[column] for other in others]))
            left[column] -= basis.T @ (basis @ left[column])
            if np.linalg.norm(left[column]) <= 1e-6 * np.linalg.norm(self.vectors[column]):
                raise PersonaProbeError(
                    f"nothing is left of {self.name!r} at layer {self.layers[column]}: it lies in the span of "
                    "the others"
                )
        return self._combined(left, f"{self.name} orthogonal to {', '.join(other.name for other in others)}", *others)

    def as_pattern(self, activations: Activations) -> Direction:
        """From filter to pattern: ``Sigma v`` with the covariance of ``activations``, at this direction's length.

        The normal of a classifier also subtracts what disturbs; what the class adds to the activations is the pattern
        (Haufe et al. 2014, "On the interpretation of weight vectors of linear models in multivariate neuroimaging",
        equation 6). Directions from classifiers are compared with others as patterns.

        Args:
            activations: both poles.

        Raises:
            PersonaProbeError: for another width, a layer that was not captured, or an unrelated model.
        """
        self._check_activations(activations, False)
        patterns = []
        for layer in self.layers:
            centred = activations.at(layer).astype(np.float64)
            centred -= centred.mean(axis=0)
            pattern = centred.T @ (centred @ self.at(layer).astype(np.float64))
            patterns.append(pattern / np.linalg.norm(pattern) * np.linalg.norm(self.at(layer)))
        return self._combined(np.stack(patterns), f"pattern of {self.name}")

    def __mul__(self, factor: float) -> Direction:
        """Scaled by ``factor``; the card's checks go with it, but for a negative factor's AUROC, which turns round."""
        if isinstance(factor, bool) or not isinstance(factor, int | float | np.number):
            return NotImplemented
        if not np.isfinite(factor) or factor == 0:
            raise PersonaProbeError(f"a direction times {factor} points nowhere")
        checks = self.card.get("checks")
        if checks and factor < 0 and checks.get("held_out_auroc"):
            checks = {**checks, "held_out_auroc": [1 - value for value in checks["held_out_auroc"]]}
        scale = float(factor) * float(self.card.get("scale", 1.0))
        card = {**self.card, "scale": scale, **({"checks": checks} if checks else {})}
        return replace(self, vectors=(self.vectors * np.float32(factor)).astype(np.float32), card=card)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Direction:
        """Scaled by ``1 / divisor``."""
        if isinstance(divisor, bool) or not isinstance(divisor, int | float | np.number):
            return NotImplemented
        if divisor == 0:
            raise PersonaProbeError("a direction cannot be divided by zero")
        return self * (1 / float(divisor))

    def __neg__(self) -> Direction:
        """The other way."""
        return self * -1.0

    def __add__(self, other: Direction) -> Direction:
        """Layer by layer."""
        if not isinstance(other, Direction):
            return NotImplemented
        self.check_together(other)
        return self._combined(self.vectors.astype(np.float64) + other.vectors, f"{self._term} + {other._term}", other)

    def __sub__(self, other: Direction) -> Direction:
        """Layer by layer."""
        if not isinstance(other, Direction):
            return NotImplemented
        self.check_together(other)
        return self._combined(self.vectors.astype(np.float64) - other.vectors, f"{self._term} - {other._term}", other)

    @property
    def _term(self) -> str:
        scale = self.card.get("scale", 1.0)
        name = f"({self.name})" if "parts" in self.card else self.name
        return name if scale == 1 else f"{scale:g} * {name}"

    def check_together(self, other: Direction) -> None:
        """Refuse two directions of other layers, width, or unrelated models."""
        if self.layers != other.layers or self.d_model != other.d_model:
            raise PersonaProbeError(
                f"directions do not belong together: {self.name!r} has layers {self.layers} of width {self.d_model}, "
                f"{other.name!r} {other.layers} of width {other.d_model}"
            )
        check_family(
            self.card, f"{other.name!r}, of another model,", other.card.get("model_hash"), _family(other), False
        )

    def _combined(self, vectors: np.ndarray, expression: str, *others: Direction) -> Direction:
        """A direction made of others: provenance that they share, their cards as parts, no checks of its own."""
        cards = [self.card, *(other.card for other in others)]
        shared = {key: self.card.get(key) for key in _PROVENANCE}
        shared = {key: value for key, value in shared.items() if all(card.get(key) == value for card in cards)}
        family = shared_family([_family(part) for part in (self, *others)])
        card = {"name": expression, "finder": "algebra", **shared, "family": family, "parts": cards}
        return Direction(vectors.astype(np.float32), self.layers, card)

    def save(self, path: str | Path) -> Path:
        """Write ``path``.safetensors and its card ``path``.json; returns the former.

        Both appear under their final names only when complete.
        """
        about = {"layers": list(self.layers), "d_model": self.d_model, "norms": [float(norm) for norm in self.norms()]}
        return files.write(path, {"vectors": self.vectors}, {"format": _FORMAT, **self.card, **about})

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Read what `save` wrote.

        Raises:
            PersonaProbeError: if a file is missing or is no direction.
        """
        tensors, card = files.read(path, _FORMAT, ("vectors",))
        return cls(tensors["vectors"], tuple(card["layers"]), {k: v for k, v in card.items() if k not in _DERIVED})


def checked_layers(layers: Sequence[int]) -> tuple[int, ...]:
    """Layer numbers as plain integers.

    Raises:
        PersonaProbeError: if one is no whole number of at least 0, or stands twice.
    """
    numbers = tuple(int(layer) for layer in layers)
    if list(numbers) != list(layers) or len(set(numbers)) != len(numbers) or any(number < 0 for number in numbers):
        raise PersonaProbeError(f"layers are {tuple(layers)}; give whole numbers from 0, each once")
    return numbers


def spanned(rows: Float[np.ndarray, "row d_model"]) -> Float[np.ndarray, "k d_model"]:
    """An orthonormal basis of what ``rows`` span, most of their squared length first; rows alike count once."""
    _, sizes, components = np.linalg.svd(rows.astype(np.float64), full_matrices=False)
    return np.asarray(components[sizes > 1e-6 * sizes[0]])


def card_of_model(model: Model) -> dict[str, Any]:
    """What a card says of the model that a direction belongs to."""
    fingerprint = model.fingerprint()
    return {
        "model": model.name,
        "model_hash": fingerprint,
        "family": sorted({fingerprint, *model.ancestors}),
        "template_hash": model.template.hash(),
        "layer_convention": LAYER_CONVENTION,
    }


def _family(direction: Direction) -> list[str]:
    return list(direction.card.get("family") or family_of(direction.card))
