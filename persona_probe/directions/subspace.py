"""Several directions together: one orthonormal basis per layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.directions import vector_files
from persona_probe.directions.direction import Direction
from persona_probe.directions.family import check_activations, family_of, shared_family
from persona_probe.directions.finders.pca import difference_components
from persona_probe.directions.finders.poles import Poles
from persona_probe.directions.layer_vectors import checked_layers, spanned
from persona_probe.errors import PATH, WHOLE, PersonaProbeError, check_types
from persona_probe.models.stream.layers import LAYER_CONVENTION
from persona_probe.result import Result
from persona_probe.statistics.inputs import numeric_array

if TYPE_CHECKING:
    import plotly.graph_objects as go

_FORMAT = "persona-probe subspace 1"


@dataclass(frozen=True, eq=False)
class Subspace(Result):
    """``k`` orthonormal directions per layer.

    Attributes:
        bases: ``(layer, k, d_model)``, float32, rows orthonormal.
        layers: the layer numbers along axis 0.
        card: where it comes from, as the card of a direction.

    >>> import persona_probe as pp
    >>> evil, warm = pp.Direction(np.array([[3.0, 4.0, 0.0]]), (2,)), pp.Direction(np.array([[0.0, 1.0, 0.0]]), (2,))
    >>> subspace = Subspace.from_directions([evil, warm])
    >>> subspace.k, float(subspace.holds(pp.Direction(np.array([[1.0, 0.0, 1.0]]), (2,)))[0].round(3))
    (2, 0.5)
    """

    bases: Float[np.ndarray, "layer k d_model"]
    layers: tuple[int, ...]
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise if the bases do not match their layers or are not orthonormal."""
        object.__setattr__(self, "bases", numeric_array(self.bases, "bases"))
        object.__setattr__(self, "layers", checked_layers(self.layers))
        if self.bases.ndim != 3 or len(self.bases) != len(self.layers):
            raise PersonaProbeError(
                f"subspace of shape {self.bases.shape} does not match {len(self.layers)} layers; "
                "expected (layer, k, d_model)"
            )
        gram = np.einsum("lkd,ljd->lkj", self.bases, self.bases, dtype=np.float64)
        off = np.abs(gram - np.eye(self.k)).max(axis=(1, 2))
        if not (off < 1e-4).all():
            raise PersonaProbeError(
                f"the basis at layer {self.layers[int(np.argmax(~(off < 1e-4)))]} is not orthonormal; make subspaces "
                "with find_subspace or Subspace.from_directions"
            )

    @classmethod
    def from_directions(cls, directions: Sequence[Direction], k: int | None = None) -> Subspace:
        """The span of ``directions``, or the ``k`` dimensions in it that hold most of their squared length.

        The principal components (not centred) of many role vectors are the persona space of Lu et al. (2026, "The
        assistant axis").

        Raises:
            PersonaProbeError: if they do not belong together, or span fewer than ``k`` dimensions.
        """
        check_types(directions=(directions, [Direction]), k=(k, WHOLE, None))
        if not directions:
            raise PersonaProbeError("a subspace needs at least one direction: the list is empty")
        total = directions[0]
        for other in directions[1:]:
            total.check_together(other)
        wanted = len(directions) if k is None else k
        stacked = np.stack([direction.vectors for direction in directions], axis=1).astype(np.float64)
        bases = np.stack([_span(rows, wanted, layer) for rows, layer in zip(stacked, total.layers, strict=True)])
        card = {
            "finder": "span",
            "k": wanted,
            "family": shared_family([direction.card.get("family") or [] for direction in directions]),
            "layer_convention": LAYER_CONVENTION,
            "parts": [direction.card for direction in directions],
        }
        return cls(bases.astype(np.float32), total.layers, card)

    @property
    def k(self) -> int:
        """Number of dimensions."""
        return int(self.bases.shape[1])

    @property
    def d_model(self) -> int:
        """Width of the residual stream that the subspace belongs to."""
        return int(self.bases.shape[2])

    def at(self, layer: int) -> Float[np.ndarray, "k d_model"]:
        """The basis of one layer."""
        if layer not in self.layers:
            raise PersonaProbeError(f"the subspace has no layer {layer}; it has {', '.join(map(str, self.layers))}")
        return self.bases[self.layers.index(layer)]

    def project(
        self, activations: Activations, *, allow_unrelated: bool = False
    ) -> Float[np.ndarray, "dialogue layer k"]:
        """Coordinates in the subspace, in residual-stream units.

        Raises:
            PersonaProbeError: for another width, a layer that the subspace lacks, or an unrelated model (with
                ``allow_unrelated``, this is a warning).
        """
        check_types(activations=(activations, Activations))
        check_activations("the subspace", self.d_model, self.card, activations, allow_unrelated)
        bases = np.stack([self.at(layer) for layer in activations.layers])
        return np.asarray(np.einsum("nld,lkd->nlk", activations.values, bases))

    def variance_explained(self, activations: Activations) -> Float[np.ndarray, "... layer"]:
        """The share of the variance over dialogues that is in the subspace, per layer."""
        check_types(activations=(activations, Activations))
        inside = self.project(activations).var(axis=0).sum(axis=1)
        return np.asarray(inside / activations.values.var(axis=0).sum(axis=1))

    def holds(self, direction: Direction) -> Float[np.ndarray, "... layer"]:
        """The share of a direction's squared length that is in the subspace, per layer."""
        check_types(direction=(direction, Direction))
        units = np.stack([direction.at(layer) for layer in self.layers])
        units = units / np.linalg.norm(units, axis=1, keepdims=True)
        return np.asarray(np.square(np.einsum("lkd,ld->lk", self.bases, units)).sum(axis=1))

    def angles(self, other: Subspace) -> Float[np.ndarray, "layer k"]:
        """Cosines of the principal angles between two subspaces, largest first (Björck and Golub 1973).

        Raises:
            PersonaProbeError: if layers or widths differ.
        """
        check_types(other=(other, Subspace))
        if self.layers != other.layers or self.d_model != other.d_model:
            raise PersonaProbeError(
                f"subspaces do not belong together: layers {self.layers} of width {self.d_model}, and "
                f"{other.layers} of width {other.d_model}"
            )
        products = np.einsum("lkd,ljd->lkj", self.bases, other.bases, dtype=np.float64)
        return np.asarray(np.clip(np.linalg.svd(products, compute_uv=False), 0.0, 1.0))

    def to_frame(self) -> pd.DataFrame:
        """How far the subspaces of every two layers overlap.

        Returns:
            One row per pair of layers, ``first`` and ``second``: ``overlap``, the mean squared cosine of their
            principal angles (1: the same), and ``chance``, its mean for random subspaces, ``k / d_model``.
        """
        flat = self.bases.astype(np.float64)
        overlap = np.square(np.einsum("akd,bjd->abkj", flat, flat)).sum(axis=(2, 3)) / self.k
        pairs = [(one, two) for one in range(len(self.layers)) for two in range(len(self.layers))]
        rows = {
            "first": [self.layers[one] for one, _ in pairs],
            "second": [self.layers[two] for _, two in pairs],
            "overlap": np.clip(overlap, 0.0, 1.0).ravel(),
        }
        return pd.DataFrame(rows).assign(chance=self.k / self.d_model)

    def plot(self) -> go.Figure:
        """The overlap of every two layers, compared with chance."""
        from persona_probe.figures.subspace import subspace

        return subspace(self.to_frame(), k=self.k)

    def headline(self) -> str:
        """Its dimensions, layers and width, and how far neighbouring layers agree."""
        line = f"Subspace({self.k} dimensions, {len(self.layers)} layers, d_model={self.d_model}"
        table = self.to_frame()
        place = {layer: number for number, layer in enumerate(self.layers)}
        neighbours = table["second"].map(place) - table["first"].map(place) == 1
        if not neighbours.any():
            return f"{line})"
        overlap = table.loc[neighbours, "overlap"]
        return (
            f"{line}; neighbouring layers overlap {overlap.min():.2f} to {overlap.max():.2f}, "
            f"chance {table['chance'].iloc[0]:.3f})"
        )

    def save(self, path: str | Path) -> Path:
        """Write ``path``.safetensors and its card ``path``.json, and return the former."""
        check_types(path=(path, PATH))
        return vector_files.write(
            path, {"bases": self.bases}, {"format": _FORMAT, **self.card, "layers": list(self.layers)}
        )

    @classmethod
    def load(cls, path: str | Path) -> Subspace:
        """The subspace that `save` wrote.

        Raises:
            PersonaProbeError: if a file is missing or does not hold a subspace.
        """
        check_types(path=(path, PATH))
        tensors, card = vector_files.read(path, _FORMAT, ("bases",))
        layers = tuple(card.pop("layers"))
        return cls(tensors["bases"], layers, card)


def find_subspace(positive: Activations, negative: Activations, k: int) -> Subspace:
    """The subspace of the ``k`` principal components of paired differences, at every layer.

    Args:
        positive: activations with the trait.
        negative: the same dialogues without it.
        k: number of dimensions.

    Raises:
        PersonaProbeError: if the poles are not pairs, or there are fewer than ``k``.

    >>> import persona_probe as pp
    >>> table = pd.DataFrame({"id": ["a", "b"]})
    >>> villain = pp.Activations(np.array([[[3.0, 1.0, 0.0]], [[0.0, 1.0, 2.0]]]), table, layers=(2,))
    >>> doctor = pp.Activations(np.array([[[0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0]]]), table, layers=(2,))
    >>> np.abs(pp.directions.find_subspace(villain, doctor, k=2).bases[0])
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    check_types(positive=(positive, Activations), negative=(negative, Activations), k=(k, WHOLE))
    poles = Poles(positive, negative)
    if not 1 <= k <= min(len(positive), positive.values.shape[2]):
        raise PersonaProbeError(
            f"k is {k}; {len(positive)} pairs of width {positive.values.shape[2]} have between 1 and "
            f"{min(len(positive), positive.values.shape[2])} components"
        )
    bases = difference_components(poles, k).astype(np.float32)
    family = family_of(positive.source, negative.source)
    card = {
        "finder": "pca",
        "k": k,
        "n_pairs": len(positive),
        "family": family,
        "positive": dict(positive.source),
        "negative": dict(negative.source),
        "layer_convention": LAYER_CONVENTION,
    }
    return Subspace(bases, positive.layers, card)


def _span(rows: Float[np.ndarray, "row d_model"], k: int, layer: int) -> Float[np.ndarray, "k d_model"]:
    components = spanned(rows)
    if not 1 <= k <= len(components):
        raise PersonaProbeError(
            f"k is {k}, but the directions span {len(components)} dimensions at layer {layer}; give another k, or "
            "leave out directions that the others already hold"
        )
    return components[:k]
