"""Linear probes at every layer, tested on groups they were not trained on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from persona_probe.activations.activations import Activations
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.linear.coefficients import Coefficients
from persona_probe.linear.fit import fit_linear
from persona_probe.probes.inputs import (
    LEFT_OUT,
    Groups,
    Labels,
    Left,
    assign_folds,
    checked_groups,
    checked_labels,
    grouping_words,
    training_factor,
)
from persona_probe.probes.layer_probes import LayerProbes
from persona_probe.probes.leakage import OnLeak, check_on_leak, find_leaks, report_leaks
from persona_probe.probes.probe_result import ProbeScores
from persona_probe.statistics.auroc import auroc, auroc_estimate
from persona_probe.statistics.average_precision import average_precision_estimate


def cross_validate_probe(
    activations: Activations,
    labels: Labels,
    *,
    groups: Groups | Left = LEFT_OUT,
    kind: str = "logistic",
    folds: int = 5,
    C: float = 1.0,
    standardize: bool = True,
    seed: int = 0,
    seeds: Sequence[int] | np.ndarray | pd.Series | None = None,
    dialogues: Sequence[Dialogue] | None = None,
    on_leak: OnLeak = "warn",
    device: str | None = None,
) -> ProbeScores:
    """Scores of a linear probe at every layer, cross-validated by group.

    All folds, and the refit, are fitted in one call. A group (topic, prompt, seed) is wholly in training or wholly in
    test; scales are fitted on the training rows alone. AUROCs compare dialogues of the same fold, which are scored by
    the same probe. Their intervals are over groups, or groups and seeds, and widened for the training rows that folds
    share (`training_factor`); ``method`` says so.

    Args:
        activations: ``(dialogue, layer, d_model)``.
        labels: one truth value per dialogue.
        groups: what must not be split, one per dialogue. There is no default: where all dialogues are independent give
            None, and results call themselves ungrouped.
        kind: ``logistic``, ``difference-of-means``, ``lda`` or ``ridge``.
        folds: how many at most; there are fewer where only fewer can each contain both classes.
        C: inverse strength of the L2 penalty.
        standardize: whether that penalty acts on standardised features.
        seed: of the assignment of groups to folds.
        seeds: the fine-tuning or sampling seed of each dialogue; needs groups (for example questions). AUROC intervals
            are then two-way, over groups and seeds, and `ProbeScores.by_seed` gives each seed's own AUROC. With fewer
            than five seeds look at those: so few seeds say little about others.
        dialogues: the texts of the rows; then equal and nearly equal ones on both sides of the split are found too.
        on_leak: what to do if something is on both sides (`persona_probe.probes.leakage`).
        device: where to fit; None: on the CPU.

    Returns:
        Scores with their tables. See `ProbeScores.best_layer` before reporting a best layer.

    Raises:
        PersonaProbeError: if groups are left out, a class is missing or is in one group only, there are fewer than
            two groups, ``dialogues`` are not those of the rows, or (``on_leak="raise"``) there is a leak.

    Examples:
        Forty dialogues about eight topics; the class shows at layer 1 only.

        >>> rng = np.random.default_rng(0)
        >>> labels, topics = np.tile([True, False], 20), np.repeat(list("abcdefgh"), 5)
        >>> values = rng.normal(size=(40, 2, 8)).astype(np.float32)
        >>> values[labels, 1, 0] += 4
        >>> table = pd.DataFrame({"id": [f"d{i}" for i in range(40)], "group": topics})
        >>> scores = cross_validate_probe(Activations(values, table, layers=(0, 1)), labels, groups=table["group"])
        >>> print(scores.table[["layer", "value", "low", "high", "grouping"]].round(2).to_string(index=False))
         layer  value  low  high            grouping
             0   0.59 0.29  0.84 by group (8 groups)
             1   0.99 0.74  1.00 by group (8 groups)
    """
    check_types(
        activations=(activations, Activations),
        dialogues=(dialogues, [Dialogue], None),
        folds=(folds, WHOLE),
        C=(C, NUMBER),
        seed=(seed, WHOLE),
    )
    check_on_leak(on_leak)
    truth, group = checked_labels(labels, len(activations)), checked_groups(groups, len(activations))
    seed_of = _checked_seeds(seeds, group, len(truth))
    fold = assign_folds(truth, group, folds, seed)
    alarms = find_leaks(fold, activations.table, dialogues)
    report_leaks(alarms, on_leak)
    fitted = fit_linear(
        activations.values, truth, kind, train=training_rows(fold), C=C, standardize=standardize, device=device
    )
    scores = out_of_fold(activations.values, fold, fitted)
    rows = [
        {"layer": layer, **evaluated(scores[:, column], truth, group, fold, seed_of)}
        for column, layer in enumerate(activations.layers)
    ]
    by_seed = None if seed_of is None else _by_seed(scores, truth, fold, seed_of, activations.layers)
    probes = LayerProbes(kind, C, standardize, device)
    probes.take(fitted.weights[-1], fitted.intercept[-1], activations, truth)
    return ProbeScores(pd.DataFrame(rows), scores, fold, truth, group, probes, tuple(alarms), by_seed)


def cross_validate_features(
    features: Float[np.ndarray, "dialogue feature"],
    labels: Labels,
    *,
    groups: Groups | Left = LEFT_OUT,
    kind: str = "logistic",
    folds: int = 5,
    C: float = 1.0,
    seed: int = 0,
) -> dict[str, Any]:
    """A row of `ProbeScores.table` without a layer: the same cross-validation on other features (a baseline's)."""
    truth, group = checked_labels(labels, len(features)), checked_groups(groups, len(features))
    fold = assign_folds(truth, group, folds, seed)
    values = np.asarray(features)[:, None]
    fitted = fit_linear(values, truth, kind, train=training_rows(fold), C=C)
    return evaluated(out_of_fold(values, fold, fitted)[:, 0], truth, group, fold)


def training_rows(folds: Int[np.ndarray, "... dialogue"]) -> Bool[np.ndarray, "problem dialogue"]:
    """Which dialogues each fold's probe is trained on; the last problem is the refit, on all."""
    numbers = np.arange(int(folds.max()) + 2)[:, None]
    return np.asarray(folds[None, :] != numbers)


def out_of_fold(
    values: Float[np.ndarray, "dialogue layer d"], folds: Int[np.ndarray, "... dialogue"], fitted: Coefficients
) -> Float[np.ndarray, "dialogue layer"]:
    """The decision value of each dialogue by the probe of the fold that it was left out of."""
    scores = np.empty(values.shape[:2])
    for fold in range(int(folds.max()) + 1):
        tested = folds == fold
        probe = Coefficients(fitted.weights[fold : fold + 1], fitted.intercept[fold : fold + 1])
        scores[tested] = probe.decision(values[tested])[0]
    return scores


def evaluated(
    scores: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray | None,
    folds: np.ndarray,
    seeds: np.ndarray | None = None,
) -> dict[str, Any]:
    """AUROC and average precision of out-of-fold scores with their intervals, and what was kept together."""
    about: dict[str, Any] = {"groups": groups, "strata": folds, "inflation": training_factor(folds)}
    precision = average_precision_estimate(scores, truth, **about)
    return {
        **auroc_estimate(scores, truth, seeds=seeds, **about).as_dict(),
        "ap": precision.value,
        "ap_low": precision.low,
        "ap_high": precision.high,
        "ap_method": precision.method,
        "prevalence": float(truth.mean()),
        "grouping": grouping_words(groups),
    }


def _checked_seeds(
    seeds: Sequence[int] | np.ndarray | pd.Series | None, groups: np.ndarray | None, n: int
) -> np.ndarray | None:
    if seeds is None:
        return None
    given = np.asarray(seeds)
    if groups is None or given.shape != (n,) or pd.isna(given).any():
        raise PersonaProbeError(
            f"probe: seeds= must name a seed for each of {n} dialogues (shape {given.shape}, "
            f"{int(pd.isna(given).sum())} missing), and needs groups= (for example questions)"
        )
    return given


def _by_seed(
    scores: np.ndarray, truth: np.ndarray, folds: np.ndarray, seeds: np.ndarray, layers: Sequence[int]
) -> pd.DataFrame:
    rows = []
    for (column, layer), seed in itertools.product(enumerate(layers), np.unique(seeds).tolist()):
        members = seeds == seed
        comparable = set(folds[members & truth].tolist()) & set(folds[members & ~truth].tolist())
        value = auroc(scores[members, column], truth[members], strata=folds[members]) if comparable else np.nan
        rows.append({"layer": layer, "seed": seed, "value": value, "n": int(members.sum())})
    return pd.DataFrame(rows)
