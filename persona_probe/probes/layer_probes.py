"""Linear probes of all layers, fitted to all dialogues: the form in which a cross-validated probe is used."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.directions import vector_files
from persona_probe.directions.direction import Direction
from persona_probe.directions.family import check_family, family_of
from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.models.stream.layers import LAYER_CONVENTION
from persona_probe.probes.inputs import Labels, checked_labels

_FORMAT = "persona-probe probes 1"
_TENSORS = ("weights", "intercept", "patterns")
_SOURCE = ("model", "model_hash", "template_hash", "span", "reduce", "sink_ratio", "steered")


class LayerProbes:
    """One linear probe per layer, all fitted in one call.

    Attributes:
        layers_: the layer numbers along the first axis of what follows.
        weights_: ``(layer, d_model)``, float64, for raw activations.
        intercept_: ``(layer,)``, float64.
        patterns_: ``(layer, d_model)``, how the activations vary with the decision in the training data: their
            covariance with it, per unit of its variance.
        card_: model hash, span, layer convention, kind, C, n of each class, versions.

    Examples:
        >>> import pandas as pd
        >>> labels = np.tile([True, False], 10)
        >>> values = np.random.default_rng(0).normal(size=(20, 2, 4)).astype(np.float32)
        >>> values[labels, 1, 0] += 5  # the class shows at layer 1, along the first dimension
        >>> activations = Activations(values, pd.DataFrame({"id": range(20)}), layers=(0, 1))
        >>> probes = LayerProbes("difference-of-means").fit(activations, labels)
        >>> probes
        LayerProbes('difference-of-means', C=1, 2 layers, 10 true and 10 false dialogues)
        >>> bool(((probes.decision_function(activations)[:, 1] > 0) == labels).all())
        True
    """

    def __init__(
        self, kind: str = "logistic", C: float = 1.0, standardize: bool = True, device: str | None = None
    ) -> None:
        """Settings; see `persona_probe.linear.fit.fit_linear`."""
        self.kind, self.C, self.standardize, self.device = kind, C, standardize, device

    def __repr__(self) -> str:
        """Kind, layers, and what they were trained on."""
        if not hasattr(self, "layers_"):
            return f"LayerProbes({self.kind!r}, C={self.C:g}, not fitted)"
        counts = f"{self.card_['n_true']} true and {self.card_['n_false']} false dialogues"
        return f"LayerProbes({self.kind!r}, C={self.C:g}, {len(self.layers_)} layers, {counts})"

    def fit(self, activations: Activations, labels: Labels) -> Self:
        """The probes, fitted to ``activations`` ``(dialogue, layer, d_model)`` and one truth value per dialogue.

        Raises:
            PersonaProbeError: if a class is missing, lengths disagree, or the fit does not converge.
        """
        check_types(activations=(activations, Activations))
        from persona_probe.linear.fit import fit_linear  # imports torch, which probes that are only opened do not need

        truth = checked_labels(labels, len(activations))
        fitted = fit_linear(
            activations.values, truth, self.kind, C=self.C, standardize=self.standardize, device=self.device
        )
        return self.take(fitted.weights[0], fitted.intercept[0], activations, truth)

    def take(
        self,
        weights: Float[np.ndarray, "layer d_model"],
        intercept: Float[np.ndarray, "... layer"],
        activations: Activations,
        truth: np.ndarray,
    ) -> Self:
        """Become the probes with these coefficients, which were fitted to ``activations`` elsewhere."""
        self.layers_, self.weights_, self.intercept_ = activations.layers, weights, intercept
        self.patterns_ = np.stack(
            [_pattern(activations.values[:, column], vector) for column, vector in enumerate(weights)]
        )
        self.card_: dict[str, Any] = {
            **{key: activations.source[key] for key in _SOURCE if key in activations.source},
            "family": family_of(activations.source),
            "layer_convention": LAYER_CONVENTION,
            "kind": self.kind,
            "C": self.C,
            "standardize": self.standardize,
            "n_true": int(truth.sum()),
            "n_false": int((~truth).sum()),
            "versions": {name: importlib.metadata.version(name) for name in ("persona-probe", "numpy", "scikit-learn")},
        }
        return self

    @property
    def d_model(self) -> int:
        """Width of the residual stream that the probes read."""
        self._check_fitted()
        return int(self.weights_.shape[1])

    def at(self, layer: int) -> tuple[Float[np.ndarray, "... d_model"], float]:
        """Weights and intercept of one layer.

        Raises:
            PersonaProbeError: if there is no probe of that layer.
        """
        self._check_fitted()
        if layer not in self.layers_:
            raise PersonaProbeError(
                f"there is no probe of layer {layer}; there are {', '.join(map(str, self.layers_))}"
            )
        column = self.layers_.index(layer)
        return self.weights_[column], float(self.intercept_[column])

    def check_family(self, model_name: str, model_hash: str | None, family: list[str], allow_unrelated: bool) -> None:
        """Raise, or with ``allow_unrelated`` warn, if a model is unrelated; see `directions.family.check_family`."""
        self._check_fitted()
        check_family(self.card_, model_name, model_hash, family, allow_unrelated, "the probes were trained")

    def decision_function(
        self, activations: Activations, *, allow_unrelated: bool = False
    ) -> Float[np.ndarray, "dialogue layer"]:
        """``w . h + b`` of each dialogue at each captured layer; values above 0 favour the class labelled True.

        Raises:
            PersonaProbeError: for another width, a layer without a probe, or activations of a model that is unrelated
                to the probes' (with ``allow_unrelated``, that is a warning).
        """
        check_types(activations=(activations, Activations))
        if activations.values.shape[2] != self.d_model:
            raise PersonaProbeError(
                f"activations have d_model={activations.values.shape[2]}, the probes {self.d_model}: "
                "they belong to different models"
            )
        source = activations.source
        self.check_family(str(source.get("model")), source.get("model_hash"), family_of(source), allow_unrelated)
        columns = []
        for layer in activations.layers:
            weights, intercept = self.at(layer)
            columns.append(activations.at(layer).astype(np.float64) @ weights + intercept)
        return np.stack(columns, axis=1)

    def direction(self, *, pattern: bool = False) -> Direction:
        """The probes as a direction.

        Args:
            pattern: instead of the weights (the filter, which also subtracts what disturbs), the pattern: how the
                activations vary with the decision, ``Sigma w / (w' Sigma w)``, in residual-stream units per unit of
                decision (Haufe et al. 2014, "On the interpretation of weight vectors of linear models in multivariate
                neuroimaging", equation 6). Patterns are what to compare with mean differences, and to steer along.
        """
        self._check_fitted()
        vectors = self.patterns_ if pattern else self.weights_
        finder = f"{self.kind} probe{', pattern' if pattern else ''}"
        return Direction(vectors.astype(np.float32), self.layers_, {**self.card_, "finder": finder})

    def save(self, path: str | Path) -> Path:
        """Write ``path``.safetensors and its card ``path``.json; return the path of the first."""
        check_types(path=(path, PATH))
        self._check_fitted()
        tensors = {name: getattr(self, f"{name}_") for name in _TENSORS}
        return vector_files.write(path, tensors, {"format": _FORMAT, **self.card_, "layers": list(self.layers_)})

    @classmethod
    def load(cls, path: str | Path) -> LayerProbes:
        """The probes that `save` wrote.

        Raises:
            PersonaProbeError: if a file is missing, or does not contain probes.
        """
        check_types(path=(path, PATH))
        tensors, card = vector_files.read(path, _FORMAT, _TENSORS)
        probes = cls(card["kind"], card["C"], card["standardize"])
        probes.layers_ = tuple(card.pop("layers"))
        probes.weights_, probes.intercept_, probes.patterns_ = (tensors[name] for name in _TENSORS)
        probes.card_ = card
        return probes

    def _check_fitted(self) -> None:
        if not hasattr(self, "layers_"):
            raise PersonaProbeError("the probes are not fitted: call fit(activations, labels) first")


def _pattern(
    values: Float[np.ndarray, "dialogue d_model"], weights: Float[np.ndarray, "... d_model"]
) -> Float[np.ndarray, "... d_model"]:
    centred = values.astype(np.float64)
    centred -= centred.mean(axis=0)
    decisions = centred @ weights
    spread = float(decisions @ decisions)
    return np.asarray(decisions @ centred / spread) if spread > 0 else np.zeros_like(weights)
