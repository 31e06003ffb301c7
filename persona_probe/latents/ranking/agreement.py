"""Which latents point where a direction points, beside how well the best latent would fit a random one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from jaxtyping import Float

from persona_probe.directions.direction import Direction
from persona_probe.directions.family import family_of
from persona_probe.errors import PersonaProbeError
from persona_probe.latents.sae import LatentWarning, Sae
from persona_probe.statistics.nulls import isotropic_directions

_COSINES_AT_ONCE = 2**23


def latent_agreement(
    sae: Sae,
    directions: Direction | Mapping[str, Direction],
    *,
    latents: Sequence[int] | None = None,
    n_random: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Cosines of latents' decoder rows with directions at the SAE's layer (also probes' normals).

    A decoder of thousands of rows has some that are near to any direction. So the null is what the best of these
    latents reaches with a random direction, and only a latent beyond it agrees more than one of them must. Random
    directions here are isotropic; where all activations lie in few dimensions that is an easy null.

    Args:
        sae: whose latents.
        directions: one, or several by name.
        latents: which; None takes all. The null is that of the best among them.
        n_random: random directions for the null.
        seed: of them.

    Returns:
        One row a direction and latent, best first within a direction: ``latent``, ``direction`` (name), ``cosine``
        (NaN where the decoder row is zero), ``null`` (97.5 % quantile over random directions of the largest
        ``|cosine|`` of these latents) and ``rank`` (by ``|cosine|``, from 1).

    Raises:
        PersonaProbeError: if there is no direction, one lacks the SAE's layer or has another width, or a latent does
            not exist.
    """
    named = {directions.name: directions} if isinstance(directions, Direction) else dict(directions)
    if not named:
        raise PersonaProbeError("latent_agreement: there are no directions: the mapping is empty")
    for name, direction in named.items():
        _check(sae, name, direction)
    wanted = np.arange(sae.width) if latents is None else np.array(sae.check_latents(latents))
    rows = sae.decoder()[wanted]
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.full_like(rows, np.nan), where=lengths > 0)
    null = _null(rows, n_random, seed)
    tables = []
    for name, direction in named.items():
        along = direction.at(sae.layer)
        cosines = rows @ (along / np.linalg.norm(along))
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
    return pd.concat(tables, ignore_index=True)


def _null(rows: Float[np.ndarray, "latent d_model"], n: int, seed: int) -> float:
    """The 97.5 % quantile of the best latent's ``|cosine|`` with random directions."""
    random = isotropic_directions(n, rows.shape[1], seed).astype(rows.dtype)
    rows = rows[np.isfinite(rows).all(axis=1)]
    best: npt.NDArray[np.float64] = np.zeros(n)
    step = max(1, _COSINES_AT_ONCE // n)
    for start in range(0, len(rows), step):
        best = np.maximum(best, np.abs(random @ rows[start : start + step].T).max(axis=1))
    return float(np.quantile(best, 0.975)) if len(rows) else float("nan")


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
