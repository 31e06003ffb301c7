"""Whether a direction may be used on a model: the one that it was found in, or a related one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from persona_probe.errors import PersonaProbeError, PersonaProbeWarning, check_types

if TYPE_CHECKING:
    from persona_probe.activations.activations import Activations
    from persona_probe.models.model import Model

_CHANGED = "; the names are the same, so its weights were changed or cast (half(), an adapter put on hf) in between"


def family_of(*sources: Mapping[str, Any]) -> list[str]:
    """The fingerprints of the models that ``sources`` come from, and of the models that those were made from."""
    family: set[str] = set()
    for source in sources:
        family |= {source["model_hash"]} if source.get("model_hash") else set()
        family |= set(source.get("ancestors") or ())
    return sorted(family)


def known_family(card: Mapping[str, Any]) -> list[str]:
    """The fingerprints that a direction's card names."""
    return list(card.get("family") or family_of(card))


def shared_family(families: Sequence[Sequence[str]]) -> list[str]:
    """The fingerprints that all families have in common; empty families (unknown ones) are ignored."""
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
    """Raise if a direction (or a probe) is used on an unrelated model; with ``allow_unrelated``, only warn.

    Two models are related if one was made from the other, or both from the same model, as the two models of a pair, or
    an adapter and its base. A direction or a model without a fingerprint is not checked.

    Raises:
        PersonaProbeError: naming both fingerprints.
    """
    ours = known_family(card)
    if not ours or not family or set(ours) & set(family):
        return
    found_in = f"{card.get('model') or 'another model'} (weights {card.get('model_hash') or ours[0]})"
    message = (
        f"{what} in {found_in}, and {model_name} (weights {model_hash}) is not known to be made from "
        f"it, or from what it was made from{_CHANGED if card.get('model') == model_name else ''}"
    )
    if not allow_unrelated:
        raise PersonaProbeError(
            f"{message}; load the two as a pair (load_pair), or give allow_unrelated=True (for a direction also: "
            "direction.adopted_by(model)) if you know that their residual streams share a basis"
        )
    warnings.warn(f"{message}; used anyway, since allow_unrelated=True", PersonaProbeWarning, stacklevel=3)


def check_activations(
    what: str, d_model: int, card: Mapping[str, Any], activations: Activations, allow_unrelated: bool
) -> None:
    """Raise if ``what`` (a direction, a subspace) has another width than ``activations``, or an unrelated model."""
    if activations.values.shape[2] != d_model:
        raise PersonaProbeError(
            f"activations have d_model={activations.values.shape[2]}, {what} {d_model}: they belong to different models"
        )
    source = activations.source
    check_family(card, str(source.get("model")), source.get("model_hash"), family_of(source), allow_unrelated)


def check_model(what: str, d_model: int, card: Mapping[str, Any], model: Model, allow_unrelated: bool) -> None:
    """Raise if ``what`` (a direction, a subspace) has another width than ``model``, or belongs to an unrelated one."""
    from persona_probe.models.model import Model

    check_types(model=(model, Model))
    if d_model != model.d_model:
        raise PersonaProbeError(
            f"{what} has d_model={d_model}, {model.name} has {model.d_model}: it belongs to another model"
        )
    if card.get("family") or card.get("model_hash"):
        fingerprint = model.fingerprint()
        check_family(card, model.name, fingerprint, sorted({fingerprint, *model.ancestors}), allow_unrelated)
