"""The function that runs any finder by name."""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.directions.family import check_family, family_of
from persona_probe.directions.finders import nulls
from persona_probe.directions.finders.checks import check_direction
from persona_probe.directions.finders.finder import Finder
from persona_probe.directions.finders.lda import lda
from persona_probe.directions.finders.logistic import logistic
from persona_probe.directions.finders.mean_difference import mean_difference, mean_difference_weights
from persona_probe.directions.finders.pca import pca
from persona_probe.directions.finders.persona_axis import persona_axis, persona_axis_weights
from persona_probe.directions.finders.poles import Poles
from persona_probe.errors import WHOLE, PersonaProbeError, check_types

FINDERS: dict[str, Finder] = {
    "mean-difference": Finder(mean_difference, weights=mean_difference_weights),
    "pca": Finder(pca, paired=True),
    "lda": Finder(lda, discriminative=True, repeats=5),
    "logistic": Finder(logistic, discriminative=True, repeats=5),
    "persona-axis": Finder(persona_axis, weights=persona_axis_weights),
    "random": Finder(nulls.random, null=True),
    "random-matched": Finder(nulls.random_matched, null=True),
    "shuffled-labels": Finder(nulls.shuffled_labels, null=True),
}
_VERSIONED = ("persona-probe", "numpy", "scikit-learn", "torch", "transformers")


def find_direction(
    positive: Activations,
    negative: Activations,
    method: str = "mean-difference",
    *,
    name: str | None = None,
    seed: int = 0,
    repeats: int | None = None,
    allow_unrelated: bool = False,
    **parameters: Any,
) -> Direction:
    """The direction from ``negative`` to ``positive``, with vectors ``(layer, d_model)`` and a card.

    Args:
        positive: activations with the trait (villain context, misaligned answers, the model after).
        negative: activations without it.
        method: name of the finder (`FINDERS`).
        name: the direction's name in tables.
        seed: seed of finders that draw at random, and of the card's checks.
        repeats: how often the card's checks (`persona_probe.directions.finders.checks`) run the finder, on halves and
            with labels of whole questions exchanged; by default 20 times (``lda`` and ``logistic`` 5), 0 for no checks.
            From 39 on every finder has a 97.5 % quantile; ``mean-difference`` and ``persona-axis`` have it anyway.
        allow_unrelated: for poles that two unrelated models read, only warn.
        **parameters: further parameters of the finder (``weight="token"`` of ``mean-difference``, ``C`` of
            ``logistic``, ...).

    Raises:
        PersonaProbeError: for an unknown finder or parameter, poles of different layers, width or span, an empty pole,
            identical poles, poles that are not pairs where a finder needs pairs, or poles of unrelated models.

    >>> import numpy as np, pandas as pd
    >>> import persona_probe as pp
    >>> table = pd.DataFrame({"id": ["a", "b"]})
    >>> villain = pp.Activations(np.array([[[3.0, 1.0]], [[5.0, 1.0]]]), table, layers=(2,))
    >>> doctor = pp.Activations(np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), table, layers=(2,))
    >>> pp.find_direction(villain, doctor, "mean-difference", repeats=0).at(2)
    array([4., 0.], dtype=float32)
    """
    check_types(
        positive=(positive, Activations),
        negative=(negative, Activations),
        method=(method, str),
        repeats=(repeats, WHOLE, None),
        seed=(seed, WHOLE),
    )
    if method not in FINDERS:
        raise PersonaProbeError(f"unknown finder {method!r}: choose one of {', '.join(FINDERS)}")
    poles, finder = Poles(positive, negative), FINDERS[method]
    source = negative.source
    check_family(
        positive.source,
        str(source.get("model")),
        source.get("model_hash"),
        family_of(source),
        allow_unrelated,
        "one pole was read",
    )
    find = functools.partial(finder, name=method, parameters=parameters, seed=seed)
    vectors = find(poles)
    repeats = finder.repeats if repeats is None else repeats
    weights = None if finder.weights is None else finder.weights(poles, **parameters)
    checked = bool(repeats) and not finder.null
    card = {
        **({} if name is None else {"name": name}),
        "finder": method,
        "parameters": finder.resolved(parameters),
        "seed": seed,
        **_provenance(positive, negative),
        "n_positive": len(positive),
        "n_negative": len(negative),
        "paired": poles.paired,
        "checks": check_direction(find, poles, vectors, repeats, seed, weights) if checked else None,
        **({} if checked else {"unchecked": "a null finds nothing by design" if finder.null else "repeats=0"}),
        "positive": dict(positive.source),
        "negative": dict(negative.source),
        "versions": {package: importlib.metadata.version(package) for package in _VERSIONED},
    }
    return Direction(vectors.astype("float32"), positive.layers, card)


def _provenance(positive: Activations, negative: Activations) -> dict[str, Any]:
    """Where the poles come from; if two models read them, the positive pole's model is named."""
    shared = ("model", "model_hash", "template_hash", "span", "reduce", "sink_ratio", "layer_convention")
    family = family_of(positive.source, negative.source)
    return {key: positive.source.get(key) for key in shared} | {"family": family}
