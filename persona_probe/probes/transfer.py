"""Probes trained on one set of dialogues and tested on another."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.directions.family import check_family, family_of
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.linear.coefficients import Coefficients
from persona_probe.linear.fit import fit_linear
from persona_probe.probes.cross_validation import out_of_fold, training_rows
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
from persona_probe.probes.transfer_result import TransferMatrix
from persona_probe.statistics.auroc import auroc_estimate
from persona_probe.statistics.estimate import Estimate


def transfer_matrix(
    activations: Activations,
    labels: Labels,
    by: str | Sequence[str] | np.ndarray | pd.Series,
    *,
    groups: Groups | Left = LEFT_OUT,
    layer: int | None = None,
    kind: str = "logistic",
    folds: int = 5,
    C: float = 1.0,
    seed: int = 0,
    device: str | None = None,
) -> TransferMatrix:
    """AUROC of probes trained on one part of the dialogues and tested on another, for all pairs of parts.

    Args:
        activations: ``(dialogue, layer, d_model)``.
        labels: one truth value per dialogue.
        by: which part each dialogue belongs to, or the column of ``activations.table`` that says so.
        groups: what must not be split; None if dialogues are independent.
        layer: one layer only; None: all.
        kind: which kind of probe.
        folds: how many at most, on the diagonal and for groups that parts share.
        C: inverse strength of the penalty.
        seed: of the folds.
        device: where to fit.

    Returns:
        `TransferMatrix`. The diagonal is cross-validated; and so are dialogues of another part whose group is also in
        the training part: they are scored by the probe of the fold that their group was left out of. What cannot be
        computed (a part of one class, too few groups) is NaN, and ``method`` says why. Other intervals are for the
        probe as fitted, and say so.

    Raises:
        PersonaProbeError: if groups are left out, there is only one part, lengths disagree, or (without groups) a
            dialogue is in two parts.

    Examples:
        Two topics; both classes differ along the same dimension, so a probe of one topic works on the other.

        >>> labels, topics = np.tile([True, False], 20), np.repeat(["medicine", "finance"], 20)
        >>> values = np.random.default_rng(0).normal(size=(40, 1, 8)).astype(np.float32)
        >>> values[labels, 0, 0] += 6
        >>> activations = Activations(values, pd.DataFrame({"id": range(40), "topic": topics}), layers=(3,))
        >>> transfer_matrix(activations, labels, by="topic", groups=None).at(3).round(2)
                  medicine  finance
        medicine       1.0      1.0
        finance        1.0      1.0
    """
    check_types(
        activations=(activations, Activations),
        layer=(layer, WHOLE, None),
        folds=(folds, WHOLE),
        C=(C, NUMBER),
        seed=(seed, WHOLE),
    )
    n = len(activations)
    if isinstance(by, str) and by not in activations.table:
        columns = ", ".join(map(str, activations.table))
        raise PersonaProbeError(f"transfer: the table has no column {by!r}; it has {columns}")
    part = np.asarray(activations.table[by] if isinstance(by, str) else by)
    if part.shape != (n,) or pd.isna(part).any():
        raise PersonaProbeError(f"transfer: by= must name a part for each of {n} dialogues (shape {part.shape})")
    part = part.astype(str)
    names = list(dict.fromkeys(part.tolist()))
    if len(names) < 2:
        raise PersonaProbeError(f"transfer: all dialogues are in one part, {names[0]!r}; at least 2 are needed")
    truth, group = checked_labels(labels, n), checked_groups(groups, n)
    layers = activations.layers if layer is None else (layer,)
    values = activations.values if layer is None else activations.at(layer)[:, None]
    parts = {name: part == name for name in names}
    trained = {
        name: TrainedPart.on(
            values[rows], truth[rows], None if group is None else group[rows], kind, folds, C, seed, device
        )
        for name, rows in parts.items()
        if _both(truth[rows])
    }
    if not trained:
        raise PersonaProbeError("transfer: no part has dialogues of both classes, so there is nothing to train on")
    if group is None:
        _check_distinct(activations.table, part)
    table: list[dict[str, Any]] = []
    for train, test in itertools.product(names, names):
        rows = parts[test]
        tested_groups = None if group is None else group[rows]
        if train not in trained or not _both(truth[rows]):
            reason = f"{test if train in trained else train} holds dialogues of one class only"
            estimates = [Estimate.missing(reason)] * len(layers)
        else:
            estimates = trained[train].tested(values[rows], truth[rows], tested_groups, itself=train == test)
        shared = pd.NA if group is None else len({*group[parts[train]]} & {*group[rows]})
        about = {"shared_groups": shared, "grouping": grouping_words(group)}
        table.extend(
            {"train": train, "test": test, "layer": number, **vars(estimate), **about}
            for number, estimate in zip(layers, estimates, strict=True)
        )
    return TransferMatrix(pd.DataFrame(table).astype({"shared_groups": "Int64"}))


def _check_distinct(table: pd.DataFrame, part: np.ndarray) -> None:
    """Raise if a dialogue is in two parts; without groups, only its id shows that it is in training and in test."""
    if "id" not in table:
        return
    named = pd.DataFrame({"id": table["id"].astype(object), "part": part}).dropna().drop_duplicates()
    if (twice := named["id"].duplicated()).any():
        raise PersonaProbeError(
            f"transfer: {int(twice.sum())} dialogues are in two parts ({named['id'][twice].iloc[0]!r}, for example), "
            "so that a probe would be tested on what it was trained on; give groups=, such as the column 'id'"
        )


def _both(truth: np.ndarray) -> bool:
    return bool(truth.any() and not truth.all())


def transfer_between(
    sets: Mapping[str, tuple[Activations, Labels]],
    *,
    groups: str | Left | None = LEFT_OUT,
    layer: int | None = None,
    kind: str = "logistic",
    folds: int = 5,
    C: float = 1.0,
    seed: int = 0,
    device: str | None = None,
    allow_unrelated: bool = False,
) -> TransferMatrix:
    """`transfer_matrix` between captures: of other personas, organisms or models (that share a residual basis).

    Args:
        sets: activations and labels by name; the same layers and width in all.
        groups: the column of the tables that says what must not be split, or None if dialogues are independent.
        layer: one layer only; None: all.
        kind: which kind of probe.
        folds: how many at most, on the diagonal and for groups that sets share.
        C: inverse strength of the penalty.
        seed: of the folds.
        device: where to fit.
        allow_unrelated: warn instead of refusing captures of unrelated models.

    Returns:
        As `transfer_matrix`.

    Raises:
        PersonaProbeError: as `transfer_matrix`, and if layers, widths, spans or reductions differ, or models are
            unrelated.
    """
    check_types(
        sets=(sets, Mapping), layer=(layer, WHOLE, None), folds=(folds, WHOLE), C=(C, NUMBER), seed=(seed, WHOLE)
    )
    if len(sets) < 2:
        raise PersonaProbeError(f"transfer: {len(sets)} sets; at least 2 are needed")
    first_name, (first, _) = next(iter(sets.items()))
    for name, (activations, labels) in sets.items():
        for what, ours, theirs in (
            ("layers", first.layers, activations.layers),
            ("d_model", first.values.shape[2], activations.values.shape[2]),
            *((key, first.source.get(key), activations.source.get(key)) for key in ("span", "reduce")),
        ):
            if ours != theirs:
                raise PersonaProbeError(f"transfer: {what} is {ours} in {first_name!r} and {theirs} in {name!r}")
        model, model_hash = activations.source.get("model"), activations.source.get("model_hash")
        check_family(
            first.source, str(model), model_hash, family_of(activations.source), allow_unrelated, "probes are trained"
        )
        if len(labels) != len(activations):
            raise PersonaProbeError(f"transfer: {len(labels)} labels for the {len(activations)} dialogues of {name!r}")
        if isinstance(groups, str) and groups not in activations.table:
            raise PersonaProbeError(f"transfer: the table of {name!r} has no column {groups!r} to group by")
    together = Activations(
        np.concatenate([activations.values for activations, _ in sets.values()]),
        pd.concat([activations.table for activations, _ in sets.values()], ignore_index=True),
        first.layers,
    )
    return transfer_matrix(
        together,
        np.concatenate([np.asarray(labels) for _, labels in sets.values()]),
        np.repeat(list(sets), [len(activations) for activations, _ in sets.values()]),
        groups=together.table[groups] if isinstance(groups, str) else groups,
        layer=layer,
        kind=kind,
        folds=folds,
        C=C,
        seed=seed,
        device=device,
    )


@dataclass(frozen=True)
class TrainedPart:
    """The probes of one part.

    Attributes:
        fitted: one probe per fold, and last the one trained on all of the part.
        folds: ``(dialogue,)`` the fold of each of its own dialogues; or why there are no folds.
        fold_of: the fold of each of its groups; -1 if there are no folds.
    """

    fitted: Coefficients
    folds: np.ndarray | str
    fold_of: Mapping[str, int]

    @classmethod
    def on(
        cls,
        values: Float[np.ndarray, "dialogue layer d"],
        truth: np.ndarray,
        groups: np.ndarray | None,
        kind: str,
        folds: int,
        C: float,
        seed: int,
        device: str | None,
    ) -> TrainedPart:
        """One probe per fold, and one fitted to all dialogues; where no folds can be made, only the latter."""
        named = [] if groups is None else groups.tolist()
        try:
            fold = assign_folds(truth, checked_groups(groups, len(truth)), folds, seed)
        except PersonaProbeError as error:
            return cls(fit_linear(values, truth, kind, C=C, device=device), str(error), dict.fromkeys(named, -1))
        fitted = fit_linear(values, truth, kind, train=training_rows(fold), C=C, device=device)
        return cls(fitted, fold, dict(zip(named, fold.tolist(), strict=False)))

    def tested(
        self, values: Float[np.ndarray, "dialogue layer d"], truth: np.ndarray, groups: np.ndarray | None, itself: bool
    ) -> list[Estimate]:
        """One AUROC per layer on dialogues of this part (``itself``) or of another one."""
        last = len(self.fitted.weights) - 1
        if itself:
            if isinstance(self.folds, str):
                return [Estimate.missing(self.folds)] * values.shape[1]
            problem = self.folds
        else:
            problem = np.full(len(truth), last)
            if groups is not None:
                problem = np.array([self.fold_of.get(group, last) for group in groups.tolist()])
        if not set(problem[truth & (problem >= 0)].tolist()) & set(problem[~truth & (problem >= 0)].tolist()):
            reason = "no probe that was trained without their groups could be tested on dialogues of both classes"
            return [Estimate.missing(reason)] * values.shape[1]
        kept = problem >= 0
        scores = out_of_fold(values[kept], problem[kept], self.fitted)
        settings: dict[str, Any] = {"groups": None if groups is None else groups[kept]}
        if (problem[kept] < last).any():
            settings |= {"strata": problem[kept], "inflation": training_factor(np.arange(last))}
        estimates = [auroc_estimate(column, truth[kept], **settings) for column in scores.T]
        if itself:
            return estimates
        return [replace(estimate, method=f"{estimate.method}, given the fitted probe") for estimate in estimates]
