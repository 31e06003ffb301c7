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
from persona_probe.statistics.question_exchange import FEWEST, share_at_least, upper_quantile

Find = Callable[[Poles], Float[np.ndarray, "layer d_model"]]
Weights = tuple[np.ndarray, np.ndarray]
DRAWS = 1_000
"""How often labels are exchanged where that takes only a product of matrices."""
_ZERO = 1e-12
"""A squared length below this share of the largest is what rounding leaves of zero."""
_FAILURES = (PersonaProbeError, ValueError, np.linalg.LinAlgError)
"""With too few dialogues, or a half that lacks what the finder needs, there is nothing to report."""


def check_direction(
    find: Find,
    poles: Poles,
    vectors: Float[np.ndarray, "layer d_model"],
    repeats: int,
    seed: int,
    weights: Weights | None = None,
) -> dict[str, Any]:
    """How far the finder agrees on halves that share no question, and what it finds under shuffled labels.

    Labels are those of whole questions (`persona_probe.statistics.question_exchange.QuestionExchange`), since answers
    to one question are alike. There are 1,000 draws (all of them, where questions are all in both poles and there are
    no more) for a finder that is a weighted sum of rows; others are run anew for each draw, ``repeats`` times. Figures
    are of each layer by itself, not corrected for the number of layers.

    Args:
        find: the finder, with its parameters.
        poles: the poles that it was given.
        vectors: the vectors that it found.
        repeats: number of splits, and of draws with exchanged labels for a finder without ``weights``.
        seed: seed of both.
        weights: of positive and negative rows, where the finder is a weighted sum of them.

    Returns:
        Lists with one number per layer, or None where there are too few data:

        * ``split_half_cosine`` of two directions from half of the questions each, mean over splits;
        * ``held_out_auroc`` of the direction of one half on the other half, mean over splits and halves;
        * ``shuffled_p`` = share of draws at least as long as this direction, which itself counts as one: the p of a
          permutation test, never below 1 / (draws + 1);
        * ``shuffled_norm``, the 97.5 % quantile of these lengths, relative to this direction's, which itself counts as
          one: shorter than 1 where ``shuffled_p`` is at most 2.5 %;
        * ``shuffled_cosine``, the 97.5 % quantile of ``|cosine|`` with directions from exchanged labels, each pole's
          mean subtracted before, and a question's rows in both poles exchanged independently of each other.

        Both quantiles are None with fewer than 39 draws, or fewer than 40 arrangements of different length: then none
        could be among the highest 2.5 %. ``shuffled`` says in words what was exchanged and how often, or why there is
        no quantile. ``repeats`` and ``seed`` are as given.
    """
    rng = np.random.default_rng(seed)
    agreements, separations = [], []
    for _ in range(repeats):
        with contextlib.suppress(*_FAILURES):
            if (halves := poles.halves(rng)) is None:
                continue
            first, second = halves
            one, other = find(first), find(second)
            agreements.append(cosine(one, other))
            separations += [_separation(one, second), _separation(other, first)]
    if weights is None:
        lengths, cosines = _found_again(find, poles, vectors, repeats, rng)
    else:
        lengths, cosines = _exchanged(poles, np.concatenate([weights[0], -weights[1]]), rng)
    exchanged = len(lengths) > 1 and poles.exchange.arrangements > 1
    lacking = poles.exchange.too_few or _too_few_draws(len(lengths) - 1)
    return {
        "split_half_cosine": _mean(agreements),
        "held_out_auroc": _mean(separations),
        "shuffled_cosine": None if lacking or len(cosines) < FEWEST - 1 else upper_quantile(cosines).tolist(),
        "shuffled_norm": None if lacking else upper_quantile(lengths / lengths[0]).tolist(),
        "shuffled_p": share_at_least(lengths).tolist() if exchanged else None,
        "shuffled": f"{len(lengths) - 1} exchanges of the labels of {poles.exchange.questions} "
        f"{'questions' if poles.exchanged == 'question' else 'dialogues'}"
        f"{lacking and f'; {lacking}'}",
        "repeats": repeats,
        "seed": seed,
    }


def _exchanged(
    poles: Poles, weights: Float[np.ndarray, "... row"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "draw layer"], Float[np.ndarray, "other layer"]]:
    """Lengths of weighted sums under exchanged labels, the actual one first; and their ``|cosine|`` with it."""
    exchange, n = poles.exchange, len(poles.positive)
    placed = exchange.coefficients(exchange.draws(DRAWS, rng), weights)
    dealt = exchange.coefficients(poles.exchange_apart.draws(DRAWS, rng), weights)
    # how much of the poles' own difference is left: of half of it at every positive question, minus half at the others
    kept = placed @ np.where(placed[0] > 0, 0.5, -0.5)
    lengths, cosines = [], []
    for column in range(len(poles.layers)):
        rows = np.concatenate([side.values[:, column] for side in (poles.positive, poles.negative)], dtype=np.float64)
        positive, negative = weights[:n] @ rows[:n], -weights[n:] @ rows[n:]
        rows[:n] -= positive
        rows[n:] -= negative
        points = np.concatenate([exchange.means(rows, weights), (positive - negative)[None]])
        products = points @ points.T
        inside = ((placed @ products[:-1, :-1]) * placed).sum(axis=1)
        along, own = placed @ products[:-1, -1], products[-1, -1]
        lengths.append(np.sqrt(np.maximum(inside + 2 * kept * along + kept**2 * own, 0.0)))
        inside = ((dealt @ products[:-1, :-1]) * dealt).sum(axis=1)
        inside[inside <= _ZERO * inside.max()] = np.nan  # the poles as they are, whose centred difference is zero
        cosines.append(np.abs(dealt @ products[:-1, -1]) / np.sqrt(inside * own))
    alike = np.stack(cosines, axis=1)
    return np.stack(lengths, axis=1), alike[~np.isnan(alike).any(axis=1)]


def _found_again(
    find: Find, poles: Poles, vectors: Float[np.ndarray, "layer d_model"], repeats: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "draw layer"], Float[np.ndarray, "other layer"]]:
    """As `_exchanged`, for any finder: it is run anew for each draw."""
    lengths, cosines = [np.linalg.norm(vectors, axis=1)], []
    for _ in range(repeats):
        with contextlib.suppress(*_FAILURES):
            lengths.append(np.linalg.norm(find(poles.shuffled(rng, centred=False)), axis=1))
        with contextlib.suppress(*_FAILURES):
            cosines.append(np.abs(cosine(vectors, find(poles.shuffled(rng)))))
    return np.stack(lengths), np.array(cosines)


def _too_few_draws(draws: int) -> str:
    if draws + 1 >= FEWEST:
        return ""
    return f"too few for a 97.5 % quantile, which needs {FEWEST - 1} (repeats={FEWEST - 1})"


def _separation(vectors: Float[np.ndarray, "layer d_model"], poles: Poles) -> Float[np.ndarray, "... layer"]:
    values, truth = poles.stacked()
    scores = np.einsum("nld,ld->nl", values, vectors)
    return np.array([auroc(scores[:, column], truth) for column in range(len(poles.layers))])


def _mean(rows: list[np.ndarray]) -> list[float] | None:
    return np.mean(rows, axis=0).tolist() if rows else None
