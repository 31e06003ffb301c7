"""Whether the statistics of latents may be compared: whether they are of one SAE, layer, span and chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona_probe.errors import PersonaProbeError

if TYPE_CHECKING:
    from persona_probe.latents.encoding.encode import LatentStatistics

SAME_SOURCE = ("sae", "layer", "span", "template_hash")
"""What the sources of two statistics must share."""


def check_alike(first: LatentStatistics, other: LatentStatistics) -> None:
    """Refuse two statistics that were not gathered in the same way.

    Raises:
        PersonaProbeError: if they are of another SAE, layer, span or chat template, or of other groups of questions.
    """
    for key in SAME_SOURCE:
        if first.source.get(key) != other.source.get(key):
            raise PersonaProbeError(
                f"{key} is {first.source.get(key)!r} for {first.source.get('model')} and {other.source.get(key)!r} for "
                f"{other.source.get('model')}, so their latents cannot be compared; encode both in the same way"
            )
    if first.sums.shape != other.sums.shape or ((first.dialogues > 0) != (other.dialogues > 0)).any():
        raise PersonaProbeError(
            f"{first.source.get('model')} and {other.source.get('model')} answered other questions (groups "
            f"{first.dialogues.tolist()} and {other.dialogues.tolist()}); give all models the same questions"
        )
