"""The same answers under two system prompts: a direction in which no word of the answer differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from persona_probe.activations.activations import Activations
from persona_probe.activations.capturing import capture
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.find import find_direction
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model


@dataclass(frozen=True)
class ContextContrast:
    """A direction found by contrast of context, with the captures it came from."""

    direction: Direction
    trait: Activations
    default: Activations


class Capture(Protocol):
    """`persona_probe.capture`, or something that does the same elsewhere."""

    def __call__(
        self, model: Model, dialogues: Sequence[Dialogue], *, span: str = ..., progress: bool = ...
    ) -> Activations:
        """Read dialogues, one vector each."""
        ...


def under_prompts(answered: Sequence[Dialogue], prompts: Sequence[str]) -> list[Dialogue]:
    """The same dialogues under system prompts: dialogue i gets prompt i modulo their number."""
    return [dialogue.with_system(prompts[i % len(prompts)]) for i, dialogue in enumerate(answered)]


def contrast_of_context(
    model: Model,
    answered: Sequence[Dialogue],
    trait_prompts: Sequence[str],
    default_prompts: Sequence[str],
    *,
    span: str = "generation",
    method: str = "mean-difference",
    read: Capture = capture,
    progress: bool = False,
) -> ContextContrast:
    """Teacher-force the same answers under trait and default system prompts and contrast what the model holds.

    Since the words are the same, what differs is who the model takes the speaker to be (after Chen et al. 2025,
    "Persona vectors", section 2.2, whose rollouts differ in content as well).

    Args:
        model: usually the model before.
        answered: dialogues with answers, usually the model's own.
        trait_prompts: system prompts that ask for the trait; dialogue i gets prompt i modulo their number.
        default_prompts: system prompts of the default persona, likewise.
        span: which tokens are read.
        method: name of the finder.
        read: what reads the activations: `capture` here, or an executor's.
        progress: show a bar.

    Raises:
        PersonaProbeError: if a list of prompts is empty, or a span is.
    """
    if not trait_prompts or not default_prompts:
        raise PersonaProbeError("contrast of context needs at least one trait prompt and one default prompt")

    trait, default = (
        read(model, under_prompts(answered, prompts), span=span, progress=progress)
        for prompts in (trait_prompts, default_prompts)
    )
    found = find_direction(trait, default, method)
    card = {**found.card, "recipe": "contrast of context", "trait_prompts": list(trait_prompts)}
    card["default_prompts"] = list(default_prompts)
    return ContextContrast(Direction(found.vectors, found.layers, card), trait, default)
