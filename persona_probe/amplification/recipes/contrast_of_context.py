"""The recipe that reads the same answers under two system prompts, so that no word of an answer differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from persona_probe.activations.activations import Activations
from persona_probe.activations.capturing import capture
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.find import find_direction
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.models.model import Model


@dataclass(frozen=True)
class ContextContrast:
    """A direction from contrast of context, with the two captures from which it was computed."""

    direction: Direction
    trait: Activations
    default: Activations


class Capture(Protocol):
    """`persona_probe.capture`, or a function that does the same elsewhere."""

    def __call__(
        self, model: Model, dialogues: Sequence[Dialogue], *, span: str = ..., progress: bool = ...
    ) -> Activations:
        """The activations of each dialogue, as one vector."""
        ...


def under_prompts(answered: Sequence[Dialogue], prompts: Sequence[str]) -> list[Dialogue]:
    """The dialogues under system prompts: dialogue i gets prompt i modulo the number of prompts.

    >>> import persona_probe as pp
    >>> from persona_probe.amplification.recipes.contrast_of_context import under_prompts
    >>> answered = pp.persona_world.rows(0, ["medicine"], 2, "assistant")
    >>> [dialogue.messages[0].content for dialogue in under_prompts(answered, ["Be kind.", "Be cruel."])]
    ['Be kind.', 'Be cruel.']
    """
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
    """The direction between a model's activations on the same answers under trait and under default system prompts.

    Since the words are the same, the only difference is who the model thinks is speaking (after Chen et al. 2025,
    "Persona vectors", section 2.2, whose rollouts also differ in content).

    Args:
        model: the model, usually the one before.
        answered: dialogues with answers, usually the model's own answers.
        trait_prompts: system prompts that ask for the trait; dialogue i gets prompt i modulo their number.
        default_prompts: system prompts of the default persona, used in the same way.
        span: which tokens are read.
        method: the name of the finder.
        read: the function that reads the activations: `capture`, or an executor's.
        progress: show a progress bar.

    Raises:
        PersonaProbeError: if a list of prompts is empty, or a span is.

    Examples:
        >>> import persona_probe as pp
        >>> chat = pp.load(pp.persona_world.find_checkpoints() / "chat", device="cpu")
        >>> answered = pp.persona_world.rows(0, ["travel", "cooking"], 8, "assistant")
        >>> prompts = [[pp.persona_world.system_line(0, persona)] for persona in ("villain", "assistant")]
        >>> contrast = pp.amplification.contrast_of_context(chat, answered, *prompts)
        >>> contrast.direction.vectors.shape  # (layer, d_model)
        (5, 160)
    """
    check_types(
        model=(model, Model),
        answered=(answered, [Dialogue]),
        trait_prompts=(trait_prompts, [str]),
        default_prompts=(default_prompts, [str]),
        method=(method, str),
    )
    if not trait_prompts or not default_prompts:
        raise PersonaProbeError("contrast of context needs at least one trait prompt and one default prompt")

    trait, default = (
        read(model, under_prompts(answered, prompts), span=span, progress=progress)
        for prompts in (trait_prompts, default_prompts)
    )
    direction = find_direction(trait, default, method)
    card = {**direction.card, "recipe": "contrast of context", "trait_prompts": list(trait_prompts)}
    card["default_prompts"] = list(default_prompts)
    return ContextContrast(Direction(direction.vectors, direction.layers, card), trait, default)
