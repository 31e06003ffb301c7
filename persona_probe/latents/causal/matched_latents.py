"""Random latents with which a latent is compared: active as much and as often; the displacement goes along them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.latents.encoding.encode import LatentStatistics
from persona_probe.latents.sae import Sae
from persona_probe.latents.steering import LatentEdit

CLOSEST = 20
"""The number of candidates from which a match is drawn."""
SHORTLIST = 500
"""The number of latents per target whose decoder rows are measured, because a wide SAE takes long to decode."""


def activation_while_active(statistics: LatentStatistics) -> Float[np.ndarray, "... latent"]:
    """``(latent,)`` the mean activation over the tokens at which each latent is active; NaN if it never is."""
    frequency = statistics.frequency
    level: np.ndarray = np.divide(statistics.mean, frequency, out=np.full(len(frequency), np.nan), where=frequency > 0)
    return level


def matched_latents(
    targets: Sequence[int],
    statistics: LatentStatistics,
    sae: Sae,
    *,
    n: int,
    seed: int,
    exclude: Sequence[int] = (),
) -> list[list[int]]:
    """Random latents that match each target in displacement and firing frequency.

    The displacement is what a latent adds to the residual stream while it is active: mean activation while active times
    decoder-row norm. Matches are drawn from the 20 nearest live latents, by Euclidean distance between the natural
    logarithms of displacement and frequency. The i-th matches of all targets together are a random set that matches the
    targets as a set.

    Args:
        targets: the latents to match; they are never matches themselves.
        statistics: how active each latent is, and how often.
        sae: the SAE of the latents.
        n: the number of matches for each target.
        seed: the seed of the draws.
        exclude: further latents that are never drawn.

    Returns:
        For each target its ``n`` matches. No latent occurs twice among a target's matches, nor among the i-th matches
        of all targets.

    Raises:
        PersonaProbeError: if a target does not exist or is never active in ``statistics``, these are of another SAE, or
            too few other latents are active.
    """
    check_types(statistics=(statistics, LatentStatistics), sae=(sae, Sae), n=(n, WHOLE), seed=(seed, WHOLE))
    check_statistics(statistics, sae)
    wanted = sae.check_latents(targets)
    level, frequency = activation_while_active(statistics), statistics.frequency
    if silent := [latent for latent in wanted if not level[latent] > 0]:
        raise PersonaProbeError(
            f"latent {', '.join(map(str, silent))} is never active in these statistics (of "
            f"{statistics.source.get('model')}), so there is nothing to match; give statistics of a model in which it "
            "is active"
        )
    pool = np.setdiff1d(np.flatnonzero(level > 0), [*wanted, *exclude])
    needed = len(wanted) + n - 1
    if len(pool) < needed:
        raise PersonaProbeError(
            f"{len(pool)} latents are active in these statistics, apart from targets and excluded ones, but {needed} "
            f"are needed for {n} matches to each of {len(wanted)} targets; read more texts, or ask for fewer matches"
        )
    near = {latent: _shortlist(latent, pool, level, frequency, max(SHORTLIST, needed)) for latent in wanted}
    measured = np.unique(np.concatenate([*near.values(), np.array(wanted)]))
    displacement = np.full(sae.width, np.nan)
    displacement[measured] = level[measured] * row_norms(sae, measured)
    ordered = {latent: _nearest(latent, near[latent], displacement, frequency) for latent in wanted}
    rng = np.random.default_rng(seed)
    matches: dict[int, list[int]] = {latent: [] for latent in wanted}
    for _ in range(n):
        used: set[int] = set()
        for latent in wanted:
            free = [int(other) for other in ordered[latent] if other not in used and other not in matches[latent]]
            drawn = free[int(rng.integers(min(CLOSEST, len(free))))]
            matches[latent].append(drawn)
            used.add(drawn)
    return list(matches.values())


def matched_edit(edit: LatentEdit, matches: Sequence[int]) -> LatentEdit:
    """An edit with the same displacement of the stream at every token, but along the decoder rows of ``matches``.

    Args:
        edit: the edit of the latents.
        matches: one match for each of ``edit.amounts``, in order.
    """
    return replace(edit, along=dict(zip(edit.amounts, matches, strict=True)))


def row_norms(sae: Sae, latents: Int[np.ndarray, "... latent"]) -> Float[np.ndarray, "... latent"]:
    """``(latent,)`` the length of what one unit of each latent's activation adds to the residual stream."""
    norms: np.ndarray = sae.rows(latents.tolist()).float().norm(dim=1).cpu().numpy().astype(np.float64)
    return norms


def check_statistics(statistics: LatentStatistics, sae: Sae) -> None:
    """Raise if the statistics are of another SAE.

    Raises:
        PersonaProbeError: if they have another number of latents, or another layer.
    """
    width, layer = len(statistics.squares), statistics.source.get("layer", sae.layer)
    name = statistics.source.get("sae", sae.name)
    if width != sae.width or layer != sae.layer or name != sae.name:
        raise PersonaProbeError(
            f"the statistics are of the SAE {name} with {width:,} latents on layer {layer}, but {sae!r} is another "
            "one; encode with this SAE"
        )


def _shortlist(
    latent: int,
    pool: Int[np.ndarray, "... other"],
    level: Float[np.ndarray, "... latent"],
    frequency: Float[np.ndarray, "... latent"],
    n: int,
) -> Int[np.ndarray, "... other"]:
    """The nearest latents without decoder rows, whose lengths differ much less than activations do."""
    return _nearest(latent, pool, level, frequency)[:n]


def _nearest(
    latent: int,
    pool: Int[np.ndarray, "... other"],
    size: Float[np.ndarray, "... latent"],
    frequency: Float[np.ndarray, "... latent"],
) -> Int[np.ndarray, "... other"]:
    distance = np.log(size[pool] / size[latent]) ** 2 + np.log(frequency[pool] / frequency[latent]) ** 2
    return pool[np.argsort(distance, kind="stable")]
