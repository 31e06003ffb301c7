"""Checks of the numbers of latents, before anything is computed."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from persona_probe.errors import PersonaProbeError


def whole_numbers(latents: Sequence[int]) -> list[int]:
    """``latents`` as a list of whole numbers; those of numpy count too.

    Raises:
        PersonaProbeError: if it is not a list, or one is not a whole number: text, a float (also 3.0) or a truth value.
    """
    try:
        given = list(latents)
    except TypeError:
        raise PersonaProbeError(f"latents is {latents!r}; give a list of whole numbers, for example [3]") from None
    return [_whole_number(latent) for latent in given]


def check_numbers(latents: Sequence[int], width: int, name: str) -> list[int]:
    """``latents`` of an SAE ``name`` with ``width`` latents, as a list.

    Raises:
        PersonaProbeError: if there is none, or one is not a whole number, does not exist, or is named twice.
    """
    wanted = whole_numbers(latents)
    if not wanted:
        raise PersonaProbeError("there are no latents: the list is empty")
    for latent in wanted:
        if not 0 <= latent < width:
            raise PersonaProbeError(f"latent {latent} does not exist: {name} has latents 0 to {width - 1}")
    if len(set(wanted)) < len(wanted):
        twice = next(latent for latent in wanted if wanted.count(latent) > 1)
        raise PersonaProbeError(f"latent {twice} is named twice")
    return wanted


def _whole_number(latent: int) -> int:
    try:
        # For Python, True is 1: a mask would name latents 0 and 1.
        if not isinstance(latent, bool | np.bool_):
            return operator.index(latent)
    except TypeError:
        pass
    raise PersonaProbeError(
        f"latent {latent!r} is of type {type(latent).__name__}; latents are numbered by whole numbers (int)"
    )
