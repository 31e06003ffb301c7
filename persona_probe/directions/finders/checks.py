"""The checks of a direction's reliability that its card contains."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from persona_probe.directions.finders.poles import Poles
from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.auroc import auroc_over_splits
from persona_probe.statistics.effect_sizes import cosine
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.question_exchange import FEWEST, share_at_least, upper_quantile
from persona_probe.statistics.replication import gate

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
    are of each layer by itself, not corrected for the number of layers, but for ``shuffled_p_corrected``.

    Args:
        find: the finder, with its parameters.
        poles: the poles that it was given.
        vectors: the vectors that it found.
        repeats: number of splits, and of draws with exchanged labels for a finder without ``weights``.
        seed: seed of both.
        weights: of positive and negative rows, where the finder is a weighted sum of them.

    Returns:
        Lists with one number per layer, or None where there are too few data (``unchecked`` says why):

        * ``split_half_cosine`` of two directions from half of the questions each, mean over splits;
        * ``held_out_auroc`` of the direction of one half on the other half, mean over splits and halves, with its 95 %
          interval over questions, ``held_out_auroc_low`` to ``held_out_auroc_high``
          (`persona_probe.statistics.auroc.auroc_over_splits`);
        * ``shuffled_p`` = share of draws at least as long as this direction, which itself counts as one: the p of a
          permutation test, never below 1 / (draws + 1);
        * ``shuffled_p_corrected``: the same for the difference between the poles' means, corrected for all layers: the
          share of draws that are, at whichever layer they stand out most, at least as long for their layer;
        * ``replicates``: whether the direction may be used at the layer
          (`persona_probe.statistics.replication.gate`);
        * ``shuffled_norm``, the 97.5 % quantile of these lengths, relative to this direction's, which itself counts as
          one: shorter than 1 where ``shuffled_p`` is at most 2.5 %;
        * ``shuffled_cosine``, the 97.5 % quantile of ``|cosine|`` with directions from exchanged labels, each pole's
          mean subtracted before, and a question's rows in both poles exchanged independently of each other.

        Both quantiles are None with fewer than 39 draws, or fewer than 40 arrangements of different length: then none
        could be among the highest 2.5 %. ``shuffled`` says in words what was exchanged and how often, or why there is
        no quantile. ``repeats`` and ``seed`` are as given.
    """
    rng = np.random.default_rng(seed)
    agreements, separation = _on_halves(find, poles, repeats, rng)
    if weights is None:
        lengths, cosines = _found_again(find, poles, vectors, repeats, rng)
        of_means = _exchanged(poles, _difference(poles), rng)[0]
    else:
        lengths, cosines = _exchanged(poles, np.concatenate([weights[0], -weights[1]]), rng)
        of_means = lengths
    exchanged = len(lengths) > 1 and poles.exchange.arrangements > 1
    lacking = poles.exchange.too_few or _too_few_draws(len(lengths) - 1)
    figures: dict[str, Any] = {
        "split_half_cosine": _mean(agreements),
        **separation,
        "shuffled_cosine": None if lacking or len(cosines) < FEWEST - 1 else upper_quantile(cosines).tolist(),
        "shuffled_norm": None if lacking else upper_quantile(lengths / lengths[0]).tolist(),
        "shuffled_p": share_at_least(lengths).tolist() if exchanged else None,
        "shuffled_p_corrected": _corrected(np.square(of_means)) if poles.exchange.arrangements > 1 else None,
    }
    unit, units = poles.exchanged, len(set(poles.codes))
    unsplit = f"{units} {unit}{'s' * (units != 1)} cannot be split into halves that both hold both poles"
    if poles.nameless:
        unsplit = (
            f"{poles.nameless} of {len(poles.codes)} rows are known neither by different questions nor by an id, so "
            "that halves could share some; give dialogues ids"
        )
    return {
        **figures,
        "replicates": gate(figures, len(poles.layers)),
        "unchecked": unsplit if not agreements else poles.exchange.too_few or None,
        "shuffled": f"{len(lengths) - 1} exchanges of the labels of {poles.exchange.questions} {unit}s"
        f"{lacking and f'; {lacking}'}",
        "repeats": repeats,
        "seed": seed,
    }


def check_given(vectors: Float[np.ndarray, "layer d_model"], poles: Poles, seed: int) -> dict[str, Any]:
    """The checks of vectors that were not found in ``poles``: all of these are held out, and nothing can be split.

    Returns:
        As `check_direction`; ``shuffled_p_corrected`` is the share of exchanged labels which the vectors separate, at
        the best layer, at least as well as the actual ones do at this layer.
    """
    rng, n = np.random.default_rng(seed), len(poles.positive)
    values, truth = poles.stacked()
    scores = np.einsum("nld,ld->ln", values.astype(np.float64), vectors)
    estimates = [auroc_over_splits(row[None], truth, np.zeros((1, truth.size)), groups=poles.codes) for row in scores]
    exchange, weights = poles.exchange, _difference(poles)
    differences = exchange.coefficients(exchange.draws(DRAWS, rng), weights) @ exchange.means(scores.T, weights)
    figures = {
        "split_half_cosine": None,
        **_columns(estimates),
        "shuffled_p_corrected": _corrected(differences) if exchange.arrangements > 1 else None,
    }
    return {
        **figures,
        "replicates": gate(figures, len(poles.layers), split=False),
        "unchecked": exchange.too_few or None,
        "on": f"{n} positive and {truth.size - n} negative dialogues of {exchange.questions} {poles.exchanged}s",
        "seed": seed,
    }


def _on_halves(
    find: Find, poles: Poles, repeats: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Cosines ``(layer,)`` between directions of halves, by split; and how each separates the other half."""
    agreements, scores, halves = [], [], []
    values, truth = poles.stacked()
    for _ in range(repeats):
        with contextlib.suppress(*_FAILURES):
            if (first := poles.split(rng)) is None:
                continue
            one, other = (find(poles.part(rows)) for rows in (first, ~first))
            alike = cosine(one, other)
            along = np.einsum("nld,ld->ln", values, other), np.einsum("nld,ld->ln", values, one)
            if np.isfinite(alike).all() and np.isfinite(along).all():
                agreements.append(alike)
                scores.append(np.where(first, *along))
                halves.append(first)
    if not scores:
        return agreements, _columns(None)
    estimates = [
        auroc_over_splits([split[column] for split in scores], truth, halves, groups=poles.codes)
        for column in range(len(poles.layers))
    ]
    return agreements, _columns(estimates)


def _columns(estimates: list[Estimate] | None) -> dict[str, Any]:
    """The AUROCs and both ends of their intervals as the card's lists."""
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"held_out_auroc{suffix}": None if estimates is None else [getattr(estimate, end) for estimate in estimates]
        for suffix, end in ends.items()
    }


def _difference(poles: Poles) -> Float[np.ndarray, "... row"]:
    """The weights of the difference between the poles' means."""
    return np.where(poles.is_positive, 1.0 / len(poles.positive), -1.0 / len(poles.negative))


def _corrected(sizes: Float[np.ndarray, "draw layer"]) -> list[float]:
    """P of each layer's size under exchanged labels (actual ones first), corrected for all layers by the largest.

    Sizes are in SD over draws, so that no layer dominates by its norm (Westfall and Young 1993, single step).
    """
    spread = sizes.std(axis=0)
    varies = spread > _ZERO * np.abs(sizes).max(axis=0)
    scaled = np.divide(sizes - sizes.mean(axis=0), spread, out=np.full_like(sizes, -np.inf), where=varies)
    largest = scaled.max(axis=1)
    # rounding must not make the actual arrangement, or its opposite, smaller than itself
    return [float((largest >= own - 1e-9 * abs(own)).mean()) if np.isfinite(own) else 1.0 for own in scaled[0]]


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


def _mean(rows: list[np.ndarray]) -> list[float] | None:
    return np.mean(rows, axis=0).tolist() if rows else None
