"""Answers under system prompts, for recipes in which the model itself writes what a persona says."""

from __future__ import annotations

from collections.abc import Sequence

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling


def rollouts(
    model: Model,
    questions: Sequence[Dialogue],
    prompts: Sequence[str],
    sampling: Sampling | None = None,
    *,
    progress: bool = False,
) -> list[Dialogue]:
    """Answers to every question under every system prompt, ``sampling.n`` of each; those without text are left out.

    Args:
        model: the model that answers.
        questions: dialogues without an answer.
        prompts: system prompts; the label ``prompt`` gives the number of the prompt.
        sampling: how answers are sampled; default ``Sampling()``. Its ``n`` is the number of answers to each question
            under each prompt.
        progress: show a progress bar.

    Raises:
        PersonaProbeError: if a list is empty, or a question already has an answer.
    """
    if not questions or not prompts:
        raise PersonaProbeError(
            f"rollouts: got {len(questions)} questions and {len(prompts)} system prompts; give at least one of each"
        )
    asked = [
        question.with_system(prompt).with_labels(prompt=number)
        for number, prompt in enumerate(prompts)
        for question in questions
    ]
    answered = model.generate(asked, sampling, progress=progress)
    return [dialogue for dialogue in answered if dialogue.answer]
