"""The answers that divergence is measured on: the unsteered model's own."""

from __future__ import annotations

from collections.abc import Sequence

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model


def own_answers(
    model: Model,
    dialogues: Sequence[Dialogue],
    *,
    max_new_tokens: int = 128,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = False,
) -> list[Dialogue]:
    """Those that have an answer as they are, the others answered by ``model`` at temperature 1.

    Answers that turn out empty are left out, since no token decides them.

    Raises:
        PersonaProbeError: if there is no dialogue, or every answer is empty.
    """
    if not dialogues:
        raise PersonaProbeError("there are no dialogues to measure divergence on: the list is empty")
    asked = [dialogue for dialogue in dialogues if dialogue.answer is None]
    said = iter(
        model.generate(
            asked, max_new_tokens=max_new_tokens, batch_size=batch_size, temperature=1.0, seed=seed, progress=progress
        )
        if asked
        else ()
    )
    answered = [next(said) if dialogue.answer is None else dialogue for dialogue in dialogues]
    kept = [dialogue for dialogue in answered if (dialogue.answer or "").strip()]
    if not kept:
        raise PersonaProbeError(f"{model.name} gave an empty answer to all {len(answered)} dialogues; ask others")
    return kept
