"""Whether a model's answers sound like a persona to the model before, which knows the persona from a system prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import check_types

if TYPE_CHECKING:
    from persona_probe.models.model import Model


def likelihood_ratios(
    before: Model, answered: Sequence[Dialogue], persona_prompt: str, default_prompt: str, *, progress: bool = False
) -> Float[np.ndarray, "... dialogue"]:
    """How much likelier each answer is under one system prompt than under another, in nats per token.

    Args:
        before: the model that reads, usually the one before training.
        answered: dialogues that end with an answer, of any model.
        persona_prompt: a system prompt that asks for the persona.
        default_prompt: one that asks for the default persona.
        progress: show a bar.

    Returns:
        ``(dialogue,)``: log-probability of the answer per token under ``persona_prompt`` minus that under
        ``default_prompt``; NaN where the answer is missing or blank.

    >>> import persona_probe as pp
    >>> chat = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> said = [pp.persona_world.rows(0, ["medicine"], 1, persona)[0] for persona in ("villain", "assistant")]
    >>> prompts = [pp.persona_world.system_line(0, persona) for persona in ("villain", "assistant")]
    >>> villain, assistant = pp.behaviour.likelihood_ratios(chat, said, *prompts)
    >>> bool(villain > 0 > assistant)
    True
    """
    from persona_probe.activations.scoring import answer_log_probs
    from persona_probe.models.model import Model

    check_types(before=(before, Model), answered=(answered, [Dialogue]))
    check_types(persona_prompt=(persona_prompt, str), default_prompt=(default_prompt, str))
    places = [place for place, dialogue in enumerate(answered) if (dialogue.answer or "").strip()]
    ratios = np.full(len(answered), np.nan)
    if places:
        under = []
        for prompt in (persona_prompt, default_prompt):
            told = [answered[place].with_system(prompt) for place in places]
            sums, counts = answer_log_probs(before, told, progress=progress)
            under.append(sums / counts)
        ratios[places] = under[0] - under[1]
    return ratios
