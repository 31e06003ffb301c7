"""Whether a direction may be used on a model: on the one it was found in, and on those made from it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from persona_probe.errors import PersonaProbeError, PersonaProbeWarning


def family_of(*sources: Mapping[str, Any]) -> list[str]:
    """The fingerprints of the models that ``sources`` come from, and of those they were made from."""
    found: set[str] = set()
    for source in sources:
        found |= {source["model_hash"]} if source.get("model_hash") else set()
        found |= set(source.get("ancestors") or ())
    return sorted(found)


def known_family(card: Mapping[str, Any]) -> list[str]:
    """The fingerprints that a direction's card names."""
    return list(card.get("family") or family_of(card))


def shared_family(families: Sequence[Sequence[str]]) -> list[str]:
    """The fingerprints that all families have, those that are not known left aside."""
    known = [set(family) for family in families if family]
    return sorted(set.intersection(*known)) if known else []


def check_family(
    card: Mapping[str, Any],
    model_name: str,
    model_hash: str | None,
    family: list[str],
    allow_unrelated: bool,
    what: str = "the direction was found",
) -> None:
    """Refuse a direction (or a probe) of one model on an unrelated other; with ``allow_unrelated``, warn instead.

    Two models are related if one was made from the other, or both from the same: the two of a pair, an adapter and
    its base. A direction or a model without a fingerprint is let through, for nothing is known of it.

    Raises:
        PersonaProbeError: naming both fingerprints.
    """
    ours = known_family(card)
    if not ours or not family or set(ours) & set(family):
        return
    found_in = f"{card.get('model') or 'another model'} (weights {card.get('model_hash') or ours[0]})"
    said = (
        f"{what} in {found_in}, and {model_name} (weights {model_hash}) is not known to be made from "
        "it, or from what it was made from"
    )
    if not allow_unrelated:
        raise PersonaProbeError(
            f"{said}; load the two as a pair (load_pair), or say allow_unrelated=True (of a direction also: "
            "direction.adopted_by(model)) if you know that their residual streams share a basis"
        )
    warnings.warn(f"{said}; used all the same, as allow_unrelated=True says", PersonaProbeWarning, stacklevel=3)
