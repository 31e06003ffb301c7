"""Which latents point where a direction points, compared with how well the best latent would fit a random direction."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from persona_probe.directions.direction import Direction
from persona_probe.directions.family import family_of
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.latents.ranking.agreement_result import LatentAgreement
from persona_probe.latents.sae import LatentWarning, Sae
from persona_probe.statistics.nulls import isotropic_directions

_NUMBERS_AT_ONCE = 2**23
"""Numbers of decoder rows, or cosines with random directions, in memory: 32 MiB in float32."""
_QUANTILE = 0.975
_FEWEST = 39
"""The largest of 39 exchangeable draws is exceeded by one more in 1 of 40 cases."""


def latent_agreement(
    sae: Sae,
    directions: Direction | Mapping[str, Direction],
    *,
    latents: Sequence[int] | None = None,
    n_random: int = 1000,
    seed: int = 0,
) -> LatentAgreement:
    """Cosines of latents' decoder rows with directions at the SAE's layer (also probes' normals).

    A decoder of thousands of rows has some that are near to any direction. So the null is what the best of these
    latents reaches with a random direction, and only a latent beyond it agrees more than chance explains: with a random
    direction in 2.5 % of cases, for each direction that is given. Random directions here are isotropic; where all
    activations lie in few dimensions that is an easy null.

    Args:
        sae: whose latents.
        directions: one, or several by name.
        latents: which latents; None takes all. The null is that of the best among them.
        n_random: number of random directions for the null, at least 39: of fewer there is no 97.5 % quantile.
        seed: of the random directions.

    Returns:
        Its ``table`` has one row per direction and latent, best first within a direction.

    Raises:
        PersonaProbeError: if there is no direction, ``n_random`` is below 39, a direction lacks the SAE's layer or has
            another width, or a latent does not exist.
    """
    check_types(
        sae=(sae, Sae),
        directions=(directions, Direction, {str: Direction}),
        n_random=(n_random, WHOLE),
        seed=(seed, WHOLE),
    )
    named = {directions.name: directions} if isinstance(directions, Direction) else dict(directions)
    if not named:
        raise PersonaProbeError("latent_agreement: there are no directions: the mapping is empty")
    if n_random < _FEWEST:
        raise PersonaProbeError(
            f"latent_agreement: n_random={n_random}; give at least {_FEWEST} random directions, because fewer have no "
            "97.5 % quantile"
        )
    for name, direction in named.items():
        _check(sae, name, direction)
    wanted = np.arange(sae.width) if latents is None else np.array(sae.check_latents(latents))
    along = np.stack([direction.at(sae.layer) for direction in named.values()], axis=1)
    all_cosines, null = _cosines(sae, wanted, along / np.linalg.norm(along, axis=0), n_random, seed)
    tables = []
    for name, cosines in zip(named, all_cosines.T, strict=True):
        order = np.argsort(-np.abs(cosines), kind="stable")  # NaN goes last
        tables.append(
            pd.DataFrame(
                {
                    "latent": wanted[order],
                    "direction": name,
                    "cosine": cosines[order].astype(np.float64),
                    "null": null,
                    "rank": np.arange(1, len(order) + 1),
                }
            )
        )
    return LatentAgreement(
        pd.concat(tables, ignore_index=True), {"sae": sae.name, "layer": sae.layer, "random": n_random}
    )


def _cosines(
    sae: Sae,
    wanted: Int[np.ndarray, "... latent"],
    along: Float[np.ndarray, "d_model direction"],
    n_random: int,
    seed: int,
) -> tuple[Float[np.ndarray, "latent direction"], float]:
    """Cosines with unit vectors, and the 97.5 % quantile of the best latent's ``|cosine|`` with random directions.

    A few decoder rows are read at a time: the decoder of a wide SAE takes gigabytes.
    """
    random = isotropic_directions(n_random, sae.d_model, seed).astype(np.float32)
    cosines = np.full((len(wanted), along.shape[1]), np.nan)
    best, live = np.zeros(n_random), False
    step = max(1, _NUMBERS_AT_ONCE // max(n_random, sae.d_model))
    for start in range(0, len(wanted), step):
        chosen = torch.as_tensor(wanted[start : start + step], device=sae.inner.W_dec.device)
        rows = sae.inner.W_dec.detach()[chosen].float().cpu().numpy()
        lengths = np.linalg.norm(rows, axis=1)
        long = lengths > 0
        rows = rows[long] / lengths[long, None]
        cosines[start : start + step][long] = rows @ along
        if len(rows):
            live, best = True, np.maximum(best, np.abs(random @ rows.T).max(axis=1))
    return cosines, float(np.quantile(best, _QUANTILE, method="weibull")) if live else float("nan")


def _check(sae: Sae, name: str, direction: Direction) -> None:
    if direction.d_model != sae.d_model:
        raise PersonaProbeError(
            f"the direction {name!r} has d_model={direction.d_model}, the SAE {sae.name} reads vectors of width "
            f"{sae.d_model}: they belong to different models"
        )
    if sae.layer not in direction.layers:
        raise PersonaProbeError(
            f"the direction {name!r} has no layer {sae.layer}, which the SAE {sae.name} reads; it has "
            f"{', '.join(map(str, direction.layers))}"
        )
    ours: Mapping[str, str] = sae.card.get("models") or {}
    theirs = list(direction.card.get("family") or family_of(direction.card))
    if ours and theirs and not set(ours.values()) & set(theirs):
        trained = ", ".join(f"{model} ({digest})" for model, digest in ours.items())
        warnings.warn(
            f"the direction {name!r} was found in {direction.card.get('model') or 'another model'} (weights "
            f"{direction.card.get('model_hash') or theirs[0]}), which is not known to be related to what the SAE "
            f"{sae.name} was trained on: {trained}; their cosines mean nothing if the residual streams share no basis",
            LatentWarning,
            stacklevel=3,
        )
