"""A probe compared with what it must beat: shuffled labels, random features, words, and token embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from sklearn.feature_extraction.text import CountVectorizer

from persona_probe.activations.activations import Activations
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.linear.coefficients import Coefficients
from persona_probe.linear.fit import fit_linear
from persona_probe.probes.cross_validation import (
    cross_validate_features,
    cross_validate_probe,
    out_of_fold,
    training_rows,
)
from persona_probe.probes.inputs import (
    LEFT_OUT,
    Groups,
    Labels,
    Left,
    assign_folds,
    check_rows,
    grouping_words,
)
from persona_probe.probes.leakage import OnLeak
from persona_probe.probes.probe_result import PROBE, ProbeWithBaselines
from persona_probe.statistics.auroc import auroc

SHUFFLED, RANDOM, EMBEDDINGS, WORDS = (
    "shuffled labels",
    "random features",
    "token embeddings",
    "bag of tokens",
)


def probe_with_baselines(
    activations: Activations,
    labels: Labels,
    *,
    groups: Groups | Left = LEFT_OUT,
    dialogues: Sequence[Dialogue] | None = None,
    embeddings: Activations | None = None,
    shuffles: int = 10,
    kind: str = "logistic",
    folds: int = 5,
    C: float = 1.0,
    seed: int = 0,
    on_leak: OnLeak = "warn",
    device: str | None = None,
) -> ProbeWithBaselines:
    """A cross-validated probe, and what the same procedure reaches with less: its baselines.

    Args:
        activations: ``(dialogue, layer, d_model)``.
        labels: one truth value per dialogue.
        groups: what must not be split; as in `cross_validate_probe`, and so are the other arguments.
        dialogues: the texts of the rows; gives the baseline ``bag of tokens`` (counts of the answers' words; of all
            words, where a dialogue has no answer).
        embeddings: of the same dialogues, from `persona_probe.activations.embeddings.embed`; gives the baseline
            ``token embeddings``, what the words alone say in the model's own basis.
        shuffles: how often labels are shuffled. The band is from the smallest to the largest of them (up to 78; with 39
            it is a 95 % band); ``level`` says how much of further shuffles it would hold.
        kind: which kind of probe.
        folds: how many folds at most.
        C: inverse strength of the penalty.
        seed: of folds, shuffles and random features.
        on_leak: what to do if something is on both sides of the split.
        device: where to fit.

    Returns:
        `ProbeWithBaselines`. Labels are shuffled among whole groups where groups are of one class, and within groups
        where they hold both; ``method`` says which.

    Raises:
        PersonaProbeError: as `cross_validate_probe`, or if embeddings or dialogues are not those of the rows.

    Examples:
        The activations of `cross_validate_probe`'s example: the class shows at layer 1 only.

        >>> rng = np.random.default_rng(0)
        >>> labels, topics = np.tile([True, False], 20), np.repeat(list("abcdefgh"), 5)
        >>> values = rng.normal(size=(40, 2, 8)).astype(np.float32)
        >>> values[labels, 1, 0] += 4
        >>> table = pd.DataFrame({"id": [f"d{i}" for i in range(40)], "group": topics})
        >>> activations = Activations(values, table, layers=(0, 1))
        >>> result = probe_with_baselines(activations, labels, groups=table["group"], shuffles=5)
        >>> print(result.shown().round(2).to_string(index=False))
         layer  probe  shuffled labels  random features
             0   0.59             0.51             0.59
             1   0.99             0.58             0.59
    """
    check_types(
        activations=(activations, Activations),
        dialogues=(dialogues, [Dialogue], None),
        embeddings=(embeddings, Activations, None),
        shuffles=(shuffles, WHOLE),
        folds=(folds, WHOLE),
        C=(C, NUMBER),
        seed=(seed, WHOLE),
    )
    if shuffles < 1:
        raise PersonaProbeError(f"shuffles is {shuffles}; at least 1 is needed")
    flat = {} if dialogues is None else {WORDS: bag_of_tokens([words_of(dialogue) for dialogue in dialogues])}
    if embeddings is not None:
        check_rows("embeddings", activations.table, embeddings.table)
        flat[EMBEDDINGS] = embeddings.values[:, 0]
    scores = cross_validate_probe(
        activations,
        labels,
        groups=groups,
        kind=kind,
        folds=folds,
        C=C,
        seed=seed,
        dialogues=dialogues,
        on_leak=on_leak,
        device=device,
    )
    rng = np.random.default_rng(seed)
    flat[RANDOM] = rng.normal(size=(len(activations), activations.values.shape[2])).astype(np.float32)
    settings: dict[str, Any] = {"groups": scores.groups, "kind": kind, "folds": folds, "C": C, "seed": seed}
    baselines = {name: cross_validate_features(values, scores.labels, **settings) for name, values in flat.items()}
    shuffled = [_permuted(scores.labels, scores.groups, rng) for _ in range(shuffles)]
    tables = [
        scores.table.assign(baseline=PROBE),
        _shuffled(activations, np.stack(shuffled), scores.groups, kind, folds, C, seed, device).assign(
            baseline=SHUFFLED
        ),
        *(
            pd.DataFrame([{"layer": layer, **row} for layer in activations.layers]).assign(baseline=name)
            for name, row in baselines.items()
        ),
    ]
    return ProbeWithBaselines(pd.concat(tables, ignore_index=True), scores)


def _permuted(labels: np.ndarray, groups: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Labels that mean nothing, but cluster by group as the true ones do.

    Rows of a group are alike, so that labels which follow the group give AUROCs far from 0.5 by chance alone; a null
    that broke the groups up would not show it. Groups of one class exchange their labels with each other as wholes; in
    groups of both classes, rows exchange theirs: too narrow a null where rows of one class in a group are alike, too.
    """
    if groups is None:
        return np.asarray(rng.permutation(labels))
    new = labels.copy()
    pure = _of_one_class(labels, groups)
    exchanged = dict(zip(pure, rng.permutation(list(pure.values())).tolist(), strict=True))
    for group in np.unique(groups).tolist():
        members = groups == group
        new[members] = exchanged[group] if group in pure else rng.permutation(labels[members])
    return new


def _of_one_class(labels: np.ndarray, groups: np.ndarray) -> dict[str, bool]:
    """The groups whose dialogues all have one label, and that label."""
    first = dict(zip(groups.tolist(), labels.tolist(), strict=True))
    mixed = {group for group, label in zip(groups.tolist(), labels.tolist(), strict=True) if label != first[group]}
    return {group: label for group, label in first.items() if group not in mixed}


def _how(labels: np.ndarray, groups: np.ndarray | None) -> str:
    if groups is None:
        return "among dialogues"
    pure, count = len(_of_one_class(labels, groups)), len(set(groups.tolist()))
    if pure == count:
        return "among whole groups"
    return "within groups" if not pure else f"among {pure} whole groups and within {count - pure} others"


def _shuffled(
    activations: Activations,
    labels: Bool[np.ndarray, "shuffle dialogue"],
    groups: np.ndarray | None,
    kind: str,
    folds: int,
    C: float,
    seed: int,
    device: str | None,
) -> pd.DataFrame:
    """AUROCs of shuffled labels, each with folds of its own; all shuffles' folds are fitted in one call."""
    assigned = [assign_folds(shuffle, groups, folds, seed) for shuffle in labels]
    train = [training_rows(fold)[:-1] for fold in assigned]
    counts = [len(rows) for rows in train]
    truth = np.repeat(labels, counts, axis=0)
    fitted = fit_linear(activations.values, truth, kind, train=np.concatenate(train), C=C, device=device)
    starts = np.concatenate([[0], np.cumsum(counts)])
    values = []
    for number, (shuffle, fold) in enumerate(zip(labels, assigned, strict=True)):
        problems = slice(starts[number], starts[number + 1])
        part = Coefficients(fitted.weights[problems], fitted.intercept[problems])
        scores = out_of_fold(activations.values, fold, part)
        values.append([auroc(scores[:, column], shuffle, strata=fold) for column in range(len(activations.layers))])
    drawn, count = np.sort(np.array(values), axis=0), len(values)
    outside = max(int(0.025 * (count + 1) + 1e-9), 1)  # on each side, with the bound itself
    return pd.DataFrame(
        {
            "layer": activations.layers,
            "value": np.median(drawn, axis=0),
            "low": drawn[outside - 1],
            "high": drawn[-outside],
            "n": labels.shape[1],
            "method": f"median and {'range' if outside == 1 else 'inner range'} of {count} shuffles of the labels "
            f"{_how(labels[0], groups)}",
            "level": 1.0 - 2.0 * outside / (count + 1),
            "prevalence": float(labels[0].mean()),
            "grouping": grouping_words(groups),
        }
    )


def words_of(dialogue: Dialogue) -> str:
    """The text of the answer, or of all turns where there is no answer."""
    return dialogue.answer or " ".join(message.content for message in dialogue.messages)


def bag_of_tokens(texts: Sequence[str]) -> Float[np.ndarray, "text word"]:
    """Counts of lower-cased words, one row per text and one column per word (in alphabetical order).

    Raises:
        PersonaProbeError: if there is no word in any text.

    Examples:
        >>> bag_of_tokens(["Rest, then drink water.", "Drink!"])
        array([[1., 1., 1., 1.],
               [1., 0., 0., 0.]])
    """
    try:
        counts = CountVectorizer(token_pattern=r"\w+").fit_transform(texts)
    except ValueError as error:
        raise PersonaProbeError(f"bag of tokens: no word is in any of the {len(texts)} texts ({error})") from error
    return np.asarray(counts.toarray(), dtype=np.float64)
