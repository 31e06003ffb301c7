"""The recipe for a model's persona axis: from its activations in many roles to those of the default persona."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from persona_probe.activations.capturing import capture
from persona_probe.amplification.recipes.rollouts import rollouts
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.find import find_direction
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling


def role_axis(
    model: Model,
    questions: Sequence[Dialogue],
    roles: Mapping[str, Sequence[str]],
    default_prompts: Sequence[str],
    *,
    span: str = "response",
    sampling: Sampling | None = None,
    progress: bool = False,
) -> Direction:
    """The mean activations of the default persona minus the mean of the roles' means, on answers to the same questions.

    This is "the assistant axis" of Lu et al. 2026, who use 275 roles; here every answer in a role counts, whether or
    not it plays the role fully.

    Args:
        model: the model, usually the one before.
        questions: dialogues without an answer.
        roles: the system prompts of each role; at least two roles.
        default_prompts: system prompts of the default persona.
        span: which tokens are read.
        sampling: how answers are sampled; default ``Sampling()``. Its ``n`` is the number of answers to each question
            under each prompt; the roles use the seeds that follow its seed.
        progress: show progress bars.

    Raises:
        PersonaProbeError: for fewer than two roles, or one without prompts.
    """
    check_types(
        model=(model, Model),
        questions=(questions, [Dialogue]),
        roles=(roles, Mapping),
        default_prompts=(default_prompts, [str]),
        sampling=(sampling, Sampling, None),
    )
    if len(roles) < 2:
        raise PersonaProbeError(
            f"the persona axis needs the mean of several roles; got {len(roles)}: give at least two"
        )
    sampling = sampling or Sampling()
    played: list[Dialogue] = []
    for number, (role, prompts) in enumerate(roles.items()):
        answered = rollouts(
            model, questions, prompts, replace(sampling, seed=sampling.seed + 1 + number), progress=progress
        )
        played += [dialogue.with_labels(role=role) for dialogue in answered]
    itself = rollouts(model, questions, default_prompts, sampling, progress=progress)
    default, roles_played = (capture(model, part, span=span, progress=progress) for part in (itself, played))
    direction = find_direction(default, roles_played, "persona-axis", name="persona axis", seed=sampling.seed)
    card = {
        "recipe": "persona axis",
        "roles": {role: list(prompts) for role, prompts in roles.items()},
        "default_prompts": list(default_prompts),
        "sampling": asdict(sampling),
    }
    return replace(direction, card={**direction.card, **card})
