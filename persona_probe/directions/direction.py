"""A persona direction: one vector a layer, and the card that says where it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.errors import PersonaProbeError
from persona_probe.models.layer_convention import LAYER_CONVENTION

if TYPE_CHECKING:
    from persona_probe.models.model import Model

_FORMAT = "persona-probe direction 1"


@dataclass(frozen=True)
class Direction:
    """Per-layer vectors with their card.

    Attributes:
        vectors: ``(layer, d_model)``, float32, raw: length carries meaning (a mean difference, say).
        layers: the layer numbers along axis 0.
        card: model and template hash, layer convention, span, finder and its parameters, counts, norms.
    """

    vectors: Float[np.ndarray, "layer d_model"]
    layers: tuple[int, ...]
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse vectors that do not match their layers, are not finite, or are zero everywhere."""
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
        detached = vectors.detach().cpu().numpy() if hasattr(vectors, "detach") else vectors
        array = np.array(detached, dtype=np.float32)
        numbers = tuple(layers) if layers is not None else tuple(range(model.n_layers))
        if array.shape != (len(numbers), model.d_model):
            raise PersonaProbeError(
                f"vectors have shape {array.shape}; {model.name} needs ({len(numbers)}, {model.d_model}): "
                "one row a layer, counted from 0, without the embedding"
            )
        card = {
            "finder": "given",
            "model": model.name,
            "model_hash": model.fingerprint(),
            "layer_convention": LAYER_CONVENTION,
        }
        return cls(array, numbers, card)

    @property
    def d_model(self) -> int:
        """Width of the residual stream the direction lives in."""
        return int(self.vectors.shape[1])

    def norms(self) -> Float[np.ndarray, "... layer"]:
        """Length of each layer's vector, in residual-stream units."""
        return np.linalg.norm(self.vectors, axis=1)

    def at(self, layer: int) -> Float[np.ndarray, "... d_model"]:
        """The raw vector of one layer."""
        if layer not in self.layers:
            raise PersonaProbeError(f"the direction has no layer {layer}; it has {', '.join(map(str, self.layers))}")
        return self.vectors[self.layers.index(layer)]

    def project(self, activations: Activations) -> Float[np.ndarray, "dialogue layer"]:
        """Projection ``h . v / ||v||`` of each dialogue at each captured layer, in residual-stream units."""
        if activations.values.shape[2] != self.d_model:
            raise PersonaProbeError(
                f"activations have d_model={activations.values.shape[2]}, the direction {self.d_model}: "
                "they belong to different models"
            )
        vectors = np.stack([self.at(layer) for layer in activations.layers])
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(np.einsum("nld,ld->nl", activations.values, units))

    def save(self, path: str | Path) -> Path:
        """Write ``path``.safetensors and its card ``path``.json; returns the former.

        Both appear under their final names only when complete.
        """
        from safetensors.numpy import save_file

        weights, text = _files(path)
        weights.parent.mkdir(parents=True, exist_ok=True)
        card = {
            "format": _FORMAT,
            **self.card,
            "layers": list(self.layers),
            "d_model": self.d_model,
            "norms": [float(norm) for norm in self.norms()],
        }
        part = weights.with_name(weights.name + ".part")
        save_file({"vectors": np.ascontiguousarray(self.vectors)}, str(part))
        part.replace(weights)
        part = text.with_name(text.name + ".part")
        part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        part.replace(text)
        return weights

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Read what `save` wrote.

        Raises:
            PersonaProbeError: if a file is missing or is no direction.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        weights, text = _files(path)
        for file in (weights, text):
            if not file.is_file():
                raise PersonaProbeError(f"{file}: no such file; a direction is a .safetensors and a .json beside it")
        try:
            card = json.loads(text.read_text(encoding="utf-8"))
            vectors = load_file(str(weights))["vectors"]
        except (json.JSONDecodeError, SafetensorError, KeyError) as error:
            raise PersonaProbeError(f"{weights}: is no saved direction: {error}") from error
        if card.get("format") != _FORMAT:
            raise PersonaProbeError(f"{text}: format is {card.get('format')!r}, expected {_FORMAT!r}")
        derived = ("format", "layers", "d_model", "norms")
        return cls(vectors, tuple(card["layers"]), {key: value for key, value in card.items() if key not in derived})


def _files(path: str | Path) -> tuple[Path, Path]:
    """The two files of a direction called ``path``, with or without either suffix; dots in the name are kept."""
    name = Path(path).name
    stem = name.removesuffix(".safetensors").removesuffix(".json")
    return Path(path).with_name(stem + ".safetensors"), Path(path).with_name(stem + ".json")
