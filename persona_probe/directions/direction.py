"""A persona direction: one vector per layer, and a card that says where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.directions import vector_files
from persona_probe.directions.family import check_activations, check_model, known_family
from persona_probe.directions.layer_vectors import LayerVectors, checked_layers
from persona_probe.directions.replication import Replication
from persona_probe.directions.top_tokens_result import TopTokens
from persona_probe.errors import PATH, WHOLE, PersonaProbeError, check_types
from persona_probe.models.stream.layers import LAYER_CONVENTION
from persona_probe.result import Result
from persona_probe.statistics.inputs import numeric_array

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from persona_probe.models.model import Model

_FORMAT = "persona-probe direction 2"
_DERIVED = ("layers", "d_model", "norms")
_CHECKS = (
    *("split_half_cosine", "shuffled_cosine", "held_out_auroc", "held_out_auroc_low", "held_out_auroc_high"),
    *("shuffled_norm", "shuffled_p", "shuffled_p_corrected"),
)


@dataclass(frozen=True, eq=False)
class Direction(LayerVectors, Result):
    """One vector per layer, with a card.

    Directions of related models can be added, subtracted and scaled (``2 * evil - warm``); the card lists the parts.

    Attributes:
        vectors: ``(layer, d_model)``, float32, raw: length carries meaning (for example of a mean difference).
        layers: the layer numbers along axis 0.
        card: model and template hash, layer convention, span, finder and its parameters, counts, checks, versions.

    >>> evil = Direction(np.array([[3.0, 4.0]]), (2,), {"name": "evil"})
    >>> warm = Direction(np.array([[0.0, 1.0]]), (2,), {"name": "warm"})
    >>> mixed = 2 * evil - warm
    >>> mixed.name, mixed.at(2)
    ('2 * evil - warm', array([6., 7.], dtype=float32))
    >>> evil.orthogonalize_to(warm).at(2)
    array([3., 0.], dtype=float32)
    """

    @classmethod
    def from_vectors(
        cls,
        model: Model,
        vectors: Float[np.ndarray, "layer d_model"] | Any,
        *,
        layers: int | Sequence[int] | None = None,
    ) -> Direction:
        """A direction for ``model`` with the given vectors, one per layer.

        Raises:
            PersonaProbeError: if the vectors are not numbers, or their shape is not ``(n_layers, d_model)`` of that
                model.
        """
        from persona_probe.models.model import Model

        check_types(model=(model, Model))
        array = numeric_array(vectors, "vectors").astype(np.float32)
        numbers = checked_layers(layers) if layers is not None else tuple(range(model.n_layers))
        if array.shape != (len(numbers), model.d_model):
            raise PersonaProbeError(
                f"vectors have shape {array.shape}; {model.name} needs ({len(numbers)}, {model.d_model}): "
                "one row per layer, counted from 0, without the embedding"
            )
        return cls(array, numbers, {"finder": "given", **card_of_model(model), "unchecked": "its vectors were given"})

    @property
    def replication(self) -> Replication:
        """Whether the direction replicates at each layer, by its card.

        That is decided on the dialogues in which it was found, before any shift is looked at; a shift along a direction
        that does not replicate shows nothing. See `persona_probe.statistics.replication.gate`.
        """
        return Replication.of_card(self.layers, self.card)

    def checked_on(self, positive: Activations, negative: Activations, *, seed: int = 0) -> Direction:
        """The same direction, whose card says whether it separates poles in which it was not found.

        For vectors from a published file, from weights or from algebra, which cannot be split in halves: all of these
        dialogues are held out. It replicates at the layers at which the AUROC's interval lies above 0.5, and exchanged
        labels of whole questions are separated as well, at whichever layer, in at most 2.5 % of draws.

        Args:
            positive: activations with the trait; dialogues in which the direction was not found.
            negative: activations without it.
            seed: seed of the exchanges.

        Raises:
            PersonaProbeError: as in `project`, and for poles that `find_direction` refuses.

        >>> rng = np.random.default_rng(0)
        >>> table = pd.DataFrame({"question": [f"question {number}" for number in range(24)]})
        >>> def read(shift):
        ...     return Activations(rng.normal(size=(24, 1, 2)) + np.array([shift, 0.0]), table, (2,))
        >>> published = Direction(np.array([[1.0, 0.0]]), (2,), {"name": "published"})
        >>> print(published.checked_on(read(2.0), read(0.0)).replication.sentence())
        replicates at layer 2 (held-out AUROC 0.89 [0.76, 0.96])
        """
        from persona_probe.directions.finders.checks import check_given
        from persona_probe.directions.finders.poles import Poles

        check_types(positive=(positive, Activations), negative=(negative, Activations), seed=(seed, WHOLE))
        poles = Poles(positive, negative)
        for side in (positive, negative):
            check_activations("the direction", self.d_model, self.card, side, False)
        chosen = self.select(poles.layers)
        return replace(chosen, card={**chosen.card, "checks": check_given(chosen.vectors, poles, seed)})

    def __repr__(self) -> str:
        """Name, layers, width, and whether it replicates."""
        about = f"Direction({self.name!r}, {len(self.layers)} layers, d_model={self.d_model}"
        return f"{about}; {self.replication.sentence() if self.replication.checked else 'replication not checked'})"

    def to_frame(self) -> pd.DataFrame:
        """One row per layer, with the norm and the card's checks.

        Returns:
            ``layer``; ``norm`` (residual-stream units); and from the card's checks
            (`persona_probe.directions.finders.checks`) ``split_half_cosine``, ``shuffled_cosine``, ``held_out_auroc``
            with its interval, ``shuffled_norm`` (here in residual-stream units), ``shuffled_p`` and
            ``shuffled_p_corrected``; NaN where the card has no such check (its ``unchecked`` and ``shuffled`` say why);
            and ``replication``, in words (`replication`).
        """
        checks = self.card.get("checks") or {}
        missing = [float("nan")] * len(self.layers)
        table = pd.DataFrame(
            {
                "layer": self.layers,
                "norm": self.norms().astype(np.float64),
                **{name: np.asarray(checks.get(name) or missing, dtype=np.float64) for name in _CHECKS},
            }
        )
        replication = [self.replication.at(layer)["replication"] for layer in self.layers]
        return table.assign(shuffled_norm=table["shuffled_norm"] * table["norm"], replication=replication)

    def plot(self) -> go.Figure:
        """Length, split-half cosine and held-out AUROC by layer, compared with exchanged labels of whole questions."""
        from persona_probe.figures.direction_card import direction_card

        return direction_card(self.to_frame(), name=self.name, verdict=self.replication.sentence())

    def headline(self) -> str:
        """Name, layers, width, and whether it replicates, as in the repr."""
        return repr(self)

    def select(self, layers: int | Sequence[int]) -> Direction:
        """The same direction at one or several of its layers, with the card's checks of these layers."""
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

    def project(
        self, activations: Activations, *, allow_unrelated: bool = False
    ) -> Float[np.ndarray, "dialogue layer"]:
        """Projection ``h . v / ||v||`` of each dialogue at each captured layer, in residual-stream units.

        Args:
            activations: activations of the model that the direction was found in, or of one made from it.
            allow_unrelated: for activations of an unrelated model, only warn.

        Raises:
            PersonaProbeError: for another width, a layer that the direction lacks, or an unrelated model.

        >>> direction = Direction(np.array([[3.0, 4.0]]), (2,))
        >>> direction.project(Activations(np.array([[[1.0, 2.0]]]), pd.DataFrame({"id": ["a"]}), (2,)))
        array([[2.2]])
        """
        check_types(activations=(activations, Activations))
        check_activations("the direction", self.d_model, self.card, activations, allow_unrelated)
        units = np.stack([self.at(layer) for layer in activations.layers])
        units = units / np.linalg.norm(units, axis=1, keepdims=True)
        return np.asarray(np.einsum("nld,ld->nl", activations.values, units))

    def check_model(self, model: Model, *, allow_unrelated: bool = False) -> None:
        """Raise if the direction has another width than ``model``, or belongs to an unrelated model.

        Raises:
            PersonaProbeError: naming both; with ``allow_unrelated``, an unrelated model of the same width is a warning.
        """
        check_model("the direction", self.d_model, self.card, model, allow_unrelated)

    def increments(self) -> Direction:
        """The difference between each layer's vector and the previous one, ``v_l - v_(l-1)``; the first stays as it is.

        If these are added at all layers at once, the stream of each layer is moved by that layer's vector once, and not
        also by those of all earlier layers (the all-layer steering of Chen et al. 2025, "Persona vectors",
        arXiv:2507.21509).

        Raises:
            PersonaProbeError: if layers are missing in between, or two neighbouring layers have the same vector.
        """
        if list(self.layers) != list(range(self.layers[0], self.layers[0] + len(self.layers))):
            raise PersonaProbeError(f"increments need neighbouring layers; {self.name!r} has {self.layers}")
        vectors = np.diff(self.vectors.astype(np.float64), axis=0, prepend=0.0)
        return self._combined(vectors, f"increments of {self.name}")

    def adopted_by(self, model: Model) -> Direction:
        """The same direction, which may then be used on ``model`` although it is not known to be related.

        Only if you know that the residual streams share a basis: the same weights in another precision, or a model made
        from the direction's model elsewhere. The card names the models that adopted it.

        Raises:
            PersonaProbeError: if the widths differ.
        """
        from persona_probe.models.model import Model

        check_types(model=(model, Model))
        if self.d_model != model.d_model:
            raise PersonaProbeError(f"the direction has d_model={self.d_model}, {model.name} has {model.d_model}")
        family = sorted({*known_family(self.card), model.fingerprint()})
        adopters = [*self.card.get("adopted_by", ()), model.name]
        return replace(self, card={**self.card, "family": family, "adopted_by": adopters})

    def top_tokens(
        self,
        model: Model,
        *,
        k: int = 10,
        layer: int | None = None,
        layers: int | Sequence[int] | None = None,
        allow_unrelated: bool = False,
    ) -> TopTokens:
        """The tokens that the direction promotes and suppresses most, read through the unembedding (the logit lens).

        Args:
            model: the model whose unembedding is used.
            k: tokens per side.
            layer: one layer.
            layers: or several; by default all layers of the direction.
            allow_unrelated: for a model that is not related to the direction's, only warn.

        Raises:
            PersonaProbeError: for a layer that the direction lacks, if ``layer`` and ``layers`` are given, and as
                `persona_probe.directions.top_tokens`.
        """
        from persona_probe.directions.top_tokens import top_tokens

        check_types(k=(k, WHOLE))
        self.check_model(model, allow_unrelated=allow_unrelated)
        if layer is not None and layers is not None:
            raise PersonaProbeError(f"top_tokens: layer={layer} and layers={layers} were given; give one of them")
        wanted = layers if layer is None else layer
        chosen = self if wanted is None else self.select(wanted)
        return TopTokens(top_tokens(model, chosen.vectors, chosen.layers, k=k), self.name)

    def best_layer(self, by: str = "held_out_auroc") -> int:
        """The layer with the largest ``by``, among those at which the direction replicates.

        Args:
            by: ``held_out_auroc``, ``split_half_cosine`` (both from the card's checks) or ``norm``; the last also for
                a direction that was not checked. Choosing by amplification needs the model after:
                `persona_probe.amplification`.

        Raises:
            PersonaProbeError: if there is no layer at which it replicates, or the card has no such check.

        >>> Direction(np.array([[3.0, 4.0], [6.0, 8.0]]), (2, 3)).best_layer("norm")
        3
        """
        check_types(by=(by, str))
        replication = self.replication
        figures = self.norms().tolist() if by == "norm" else (self.card.get("checks") or {}).get(by)
        if by not in ("norm", "held_out_auroc", "split_half_cosine") or figures is None:
            raise PersonaProbeError(
                f"the card of {self.name!r} has no {by!r}; choose 'norm', or 'held_out_auroc' or 'split_half_cosine' "
                "of a direction found with repeats above 0 on enough questions"
            )
        if replication.checked and not replication.layers_that_replicate:
            raise PersonaProbeError(f"{self.name!r}: {replication.sentence()}")
        allowed = replication.layers_that_replicate or self.layers
        # A reversed direction separates equally well, with an AUROC on the other side of one half.
        sizes = {
            layer: abs(figure - 0.5) if by == "held_out_auroc" else figure
            for layer, figure in zip(self.layers, figures, strict=True)
        }
        return max(allowed, key=lambda layer: sizes[layer])

    def as_pattern(self, activations: Activations) -> Direction:
        """The pattern of a filter: ``Sigma v`` with the covariance of ``activations``, at this direction's length.

        The normal of a classifier (a filter) also subtracts disturbances; the pattern is what the class adds to the
        activations (Haufe et al. 2014, "On the interpretation of weight vectors of linear models in multivariate
        neuroimaging", equation 6). Compare directions from classifiers with others as patterns.

        Args:
            activations: activations of both poles.

        Raises:
            PersonaProbeError: for another width, a layer that was not captured, or an unrelated model.
        """
        check_types(activations=(activations, Activations))
        check_activations("the direction", self.d_model, self.card, activations, False)
        patterns = []
        for layer in self.layers:
            centred = activations.at(layer).astype(np.float64)
            centred -= centred.mean(axis=0)
            pattern = centred.T @ (centred @ self.at(layer).astype(np.float64))
            patterns.append(pattern / np.linalg.norm(pattern) * np.linalg.norm(self.at(layer)))
        return self._combined(np.stack(patterns), f"pattern of {self.name}")

    def save(self, path: str | Path) -> Path:
        """Write ``path``.safetensors and its card ``path``.json, and return the former.

        Both appear under their final names only when they are complete.
        """
        check_types(path=(path, PATH))
        about = {"layers": list(self.layers), "d_model": self.d_model, "norms": [float(norm) for norm in self.norms()]}
        return vector_files.write(path, {"vectors": self.vectors}, {"format": _FORMAT, **self.card, **about})

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """The direction that `save` wrote.

        Raises:
            PersonaProbeError: if a file is missing or does not hold a direction.
        """
        check_types(path=(path, PATH))
        tensors, card = vector_files.read(path, _FORMAT, ("vectors",))
        return cls(tensors["vectors"], tuple(card["layers"]), {k: v for k, v in card.items() if k not in _DERIVED})


def card_of_model(model: Model) -> dict[str, Any]:
    """The part of a direction's card that describes its model."""
    fingerprint = model.fingerprint()
    return {
        "model": model.name,
        "model_hash": fingerprint,
        "family": sorted({fingerprint, *model.ancestors}),
        "template_hash": model.template.hash(),
        "layer_convention": LAYER_CONVENTION,
    }
