"""Checks of what callers give to probes (labels, groups), and the folds made from it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.inputs import on_host

Labels: TypeAlias = Sequence[bool] | np.ndarray | pd.Series
Groups: TypeAlias = Sequence[str] | np.ndarray | pd.Series | None
UNGROUPED = "ungrouped"
_ATTEMPTS = 10


class Left:
    """The default of ``groups``: the argument was left out, which is an error, while None is a choice."""

    def __repr__(self) -> str:
        """How signatures show it."""
        return "<required>"


LEFT_OUT = Left()


def checked_labels(labels: Labels, n: int) -> Bool[np.ndarray, "... dialogue"]:
    """``labels`` as truth values; both classes are among them.

    Raises:
        PersonaProbeError: if lengths disagree, a label is neither true nor false, or a class is missing.
    """
    given = np.asarray(on_host(labels))
    if given.shape != (n,):
        raise PersonaProbeError(f"probe: {given.shape} labels for {n} dialogues; give one per dialogue")
    if unusable := [value for value in given.tolist() if pd.isna(value) or value not in (0, 1)]:
        raise PersonaProbeError(
            f"probe: {len(unusable)} of {n} labels are neither true nor false (the first is {unusable[0]!r}); "
            "leave those dialogues out with activations.where(...)"
        )
    truth = given.astype(bool)
    if truth.all() or not truth.any():
        raise PersonaProbeError(f"probe: all {n} labels are {bool(truth[0])}; both classes are needed")
    return truth


def checked_groups(groups: Groups | Left, n: int) -> np.ndarray | None:
    """``groups`` as an array, or None if the caller says that there are none.

    Raises:
        PersonaProbeError: if they are left out, lengths disagree, a group is missing, or there is only one group.
    """
    if isinstance(groups, Left):
        raise PersonaProbeError(
            "probe: groups= is missing. Dialogues that share a prompt, a topic or a seed must not be split between "
            "training and test, or the probe is tested on what it has seen: give one group per dialogue, as in "
            "groups=activations.table['group']. If every dialogue is independent of all others, give groups=None; "
            "results then call themselves ungrouped"
        )
    if groups is None:
        return None
    given = np.asarray(on_host(groups))
    if given.shape != (n,):
        raise PersonaProbeError(f"probe: {given.shape} groups for {n} dialogues; give one per dialogue")
    if missing := int(pd.isna(given).sum()):
        raise PersonaProbeError(
            f"probe: {missing} of {n} dialogues have no group; name one for each (for example the question, by fillna)"
        )
    names = given.astype(str)
    if len(set(names.tolist())) < 2:
        raise PersonaProbeError("probe: all dialogues are in one group, so no group is left to test on")
    return names


def grouping_words(groups: np.ndarray | None) -> str:
    """The words with which results say what was kept together."""
    return UNGROUPED if groups is None else f"by group ({len(set(groups.tolist()))} groups)"


def assign_folds(
    truth: Bool[np.ndarray, "... dialogue"], groups: np.ndarray | None, folds: int, seed: int
) -> Int[np.ndarray, "... dialogue"]:
    """The fold that each dialogue is tested in, balanced by label; groups are kept whole.

    There are as many folds, at most ``folds``, as can each contain both classes: within a fold all scores come from the
    same probe, and only those can be compared (`persona_probe.statistics.auroc.auroc`).

    Raises:
        PersonaProbeError: if fewer than two folds are asked for or can be made.
    """
    if folds < 2:
        raise PersonaProbeError(f"probe: folds is {folds}; at least 2 are needed")
    unit = np.arange(len(truth)) if groups is None else groups
    most = min(folds, *(len(set(unit[side].tolist())) for side in (truth, ~truth)))
    for count in range(most, 1, -1):
        for attempt in range(_ATTEMPTS):
            number = _split(truth, groups, count, seed + attempt)
            if all(len(set(number[side].tolist())) == count for side in (truth, ~truth)):
                return number
    if groups is None:
        raise PersonaProbeError("probe: one class has a single dialogue, which cannot be trained and tested on")
    raise PersonaProbeError("probe: one class stands in a single group only; more groups must hold both classes")


def _split(truth: np.ndarray, groups: np.ndarray | None, count: int, seed: int) -> np.ndarray:
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(count, shuffle=True, random_state=seed)
    number = np.full(len(truth), -1)
    with warnings.catch_warnings():
        # More folds than rows of a class: all folds may still contain both classes, where groups are mixed.
        warnings.filterwarnings("ignore", category=UserWarning, message="The least populated class")
        for fold, (_, test) in enumerate(splitter.split(truth, truth, groups)):
            number[test] = fold
    return number


def training_factor(folds: Int[np.ndarray, "... dialogue"]) -> float:
    """What the variance of a cross-validated figure is multiplied by, since its folds share training rows.

    A margin, not a derived correction: the jackknife over groups takes the folds' probes as given, and does not see
    that other training rows would have made other probes. ``1 + folds * test rows / training rows`` (2.25 for five
    folds) has the form of the factor of Nadeau and Bengio (2003, "Inference for the generalization error", section 4),
    which is for another variance, that of a mean over splits. In simulations (`benchmarks/coverage/separation.py`)
    intervals with it are cautious: 96 to 100 % of them hold the truth.

    Examples:
        >>> training_factor(np.array([0, 1, 2, 3, 4]))
        2.25
    """
    count = int(folds.max()) + 1
    return 1.0 + count / (count - 1)


def check_rows(what: str, table: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Raise if ``what`` (its ``id`` and ``question`` are in ``rows``) does not belong to the dialogues in ``table``.

    Raises:
        PersonaProbeError: if a row differs; the first such row is named.
    """
    if len(rows) != len(table):
        raise PersonaProbeError(f"probe: {what} of {len(rows)} dialogues for {len(table)} rows; give those of the rows")
    for column in (name for name in ("id", "question") if name in table and name in rows):
        ours, theirs = table[column], rows[column]
        for row, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if not (pd.isna(one) or pd.isna(other)) and str(one) != str(other):
                raise PersonaProbeError(
                    f"probe: {what} are not those of the activations, or in another order: row {row} has {column} "
                    f"{one!r} in the activations and {other!r} in the {what}"
                )
