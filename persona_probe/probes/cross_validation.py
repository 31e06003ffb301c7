"""Linear probes at every layer, tested on groups they were not trained on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from persona_probe.activations.activations import Activations
from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.auroc import auroc_estimate


@dataclass(frozen=True)
class ProbeScores:
    """Out-of-group scores of a linear probe.

    Attributes:
        table: one row a layer: ``layer``, ``value`` (AUROC), ``low``, ``high``, ``n``, ``method``.
        scores: ``(dialogue, layer)`` decision values, each from a probe that never saw the dialogue's group.
    """

    table: pd.DataFrame
    scores: Float[np.ndarray, "dialogue layer"]


def cross_validate_probe(
    activations: Activations,
    labels: Sequence[bool] | np.ndarray | pd.Series,
    groups: Sequence[str] | np.ndarray | pd.Series,
    *,
    folds: int = 5,
    C: float = 1.0,
    seed: int = 0,
) -> ProbeScores:
    """Logistic probes (L2) per layer, cross-validated by group.

    A group (topic, prompt, seed) is wholly in training or wholly in test; the scaler is fitted inside the fold.

    Args:
        activations: ``(dialogue, layer, d_model)``.
        labels: truth value a dialogue.
        groups: what must not be split, one a dialogue.
        folds: at most; fewer when there are fewer groups.
        C: inverse strength of the L2 penalty, on standardised features.
        seed: of the assignment of groups to folds.

    Raises:
        PersonaProbeError: if a class is missing, or there are fewer than two groups.
    """
    truth, group = _checked(labels, groups, len(activations))
    scores = np.stack(
        [
            _out_of_group(activations.values[:, column], truth, group, folds, C, seed)
            for column in range(len(activations.layers))
        ],
        axis=1,
    )
    rows = [
        {"layer": layer, **auroc_estimate(scores[:, column], truth, groups=group).as_dict()}
        for column, layer in enumerate(activations.layers)
    ]
    return ProbeScores(pd.DataFrame(rows), scores)


def cross_validate_features(
    features: Float[np.ndarray, "dialogue feature"],
    labels: Sequence[bool] | np.ndarray | pd.Series,
    groups: Sequence[str] | np.ndarray | pd.Series,
    *,
    folds: int = 5,
    C: float = 1.0,
    seed: int = 0,
) -> dict[str, float | int | str | None]:
    """The same cross-validation on other features (a baseline's): AUROC with its interval."""
    truth, group = _checked(labels, groups, len(features))
    return auroc_estimate(_out_of_group(features, truth, group, folds, C, seed), truth, groups=group).as_dict()


def _checked(labels: object, groups: object, n: int) -> tuple[np.ndarray, np.ndarray]:
    truth, group = np.asarray(labels, dtype=bool), np.asarray(groups)
    if truth.shape != (n,) or group.shape != (n,):
        raise PersonaProbeError(f"probe: {truth.shape} labels and {group.shape} groups for {n} dialogues")
    if truth.all() or not truth.any():
        raise PersonaProbeError(f"probe: all {n} labels are {bool(truth[0])}; both classes are needed")
    if len(set(group.tolist())) < 2:
        raise PersonaProbeError("probe: all dialogues are in one group, so no group is left to test on")
    return truth, group


def _out_of_group(
    features: np.ndarray, truth: np.ndarray, group: np.ndarray, folds: int, C: float, seed: int
) -> np.ndarray:
    splitter = StratifiedGroupKFold(min(folds, len(set(group.tolist()))), shuffle=True, random_state=seed)
    scores = np.full(len(truth), np.nan)
    with warnings.catch_warnings():
        # Rare classes leave a fold without a positive; the pooled score below does not need one in every fold.
        warnings.filterwarnings("ignore", category=UserWarning, message="The least populated class")
        splits = list(splitter.split(features, truth, group))
    for train, test in splits:
        if truth[train].all() or not truth[train].any():
            raise PersonaProbeError(
                "probe: one class stands in a single group only; more groups must hold both classes"
            )
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))
        scores[test] = probe.fit(features[train], truth[train]).decision_function(features[test])
    return scores
