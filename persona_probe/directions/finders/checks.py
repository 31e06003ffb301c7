"""The checks of a direction's reliability that its card contains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.directions.finders.poles import Poles
from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.auroc import auroc
from persona_probe.statistics.effect_sizes import cosine

Find = Callable[[Poles], Float[np.ndarray, "layer d_model"]]


def check_direction(
    find: Find, poles: Poles, vectors: Float[np.ndarray, "layer d_model"], repeats: int, seed: int
) -> dict[str, Any]:
    """How far the finder agrees on halves that share no question, and what it finds under shuffled labels.

    Args:
        find: the finder, with its parameters.
        poles: the poles that it was given.
        vectors: the vectors that it found.
        repeats: number of splits, and of shuffles.
        seed: seed of both.

    Returns:
        Per layer ``split_half_cosine`` (of two directions from half of the questions each, mean over splits),
        ``held_out_auroc`` (of the direction of one half on the other half, mean over splits and halves),
        ``shuffled_cosine`` (97.5 % quantile of ``|cosine|`` with directions from shuffled labels) and
        ``shuffled_norm`` (97.5 % quantile of their length, relative to this direction's): lists, or None if there are
        too few data; and the number of ``repeats`` and the ``seed``.
    """
    rng = np.random.default_rng(seed)
    agreements, separations, chance, lengths = [], [], [], []
    for _ in range(repeats):
        # With too few dialogues, or a half that lacks what the finder needs, there is nothing to report.
        with contextlib.suppress(PersonaProbeError, ValueError, np.linalg.LinAlgError):
            drawn = find(poles.shuffled(rng))
            chance.append(np.abs(cosine(vectors, drawn)))
            lengths.append(np.linalg.norm(drawn, axis=1) / np.linalg.norm(vectors, axis=1))
        with contextlib.suppress(PersonaProbeError, ValueError, np.linalg.LinAlgError):
            if (halves := poles.halves(rng)) is None:
                continue
            first, second = halves
            one, other = find(first), find(second)
            agreements.append(cosine(one, other))
            separations += [_separation(one, second), _separation(other, first)]
    return {
        "split_half_cosine": _mean(agreements),
        "held_out_auroc": _mean(separations),
        "shuffled_cosine": _high(chance),
        "shuffled_norm": _high(lengths),
        "repeats": repeats,
        "seed": seed,
    }


def _separation(vectors: Float[np.ndarray, "layer d_model"], poles: Poles) -> Float[np.ndarray, "... layer"]:
    values, truth = poles.stacked()
    scores = np.einsum("nld,ld->nl", values, vectors)
    return np.array([auroc(scores[:, column], truth) for column in range(len(poles.layers))])


def _high(rows: list[np.ndarray]) -> list[float] | None:
    return np.quantile(rows, 0.975, axis=0).tolist() if rows else None


def _mean(rows: list[np.ndarray]) -> list[float] | None:
    return np.mean(rows, axis=0).tolist() if rows else None
