"""The persona axis of a model: from what it is in many roles to what it is by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from persona_probe.activations.capturing import capture
from persona_probe.amplification.recipes.rollouts import rollouts
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.directions.find import find_direction
from persona_probe.errors import PersonaProbeError
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
    """Answer the same questions in many roles and as oneself; the default's mean minus the mean of the roles' means.

    "The assistant axis" (Lu et al. 2026), with 275 roles there; here every answer in a role counts, whether or not it
    is fully in the role.

    Args:
        model: usually the model before.
        questions: dialogues without an answer.
        roles: system prompts by role, at least two roles.
        default_prompts: system prompts of the default persona.
        span: which tokens are read.
        sampling: how answers are sampled; default ``Sampling()``. Its ``n`` is answers to each question under each
            prompt; roles draw with the seeds that follow its own.
        progress: show bars.

    Raises:
        PersonaProbeError: for fewer than two roles, or one without prompts.
    """
    if len(roles) < 2:
        raise PersonaProbeError(
            f"the persona axis is against the mean of many roles; got {len(roles)}: give at least two"
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
    found = find_direction(default, roles_played, "persona-axis", name="persona axis", seed=sampling.seed)
    card = {
        "recipe": "persona axis",
        "roles": {role: list(prompts) for role, prompts in roles.items()},
        "default_prompts": list(default_prompts),
        "sampling": asdict(sampling),
    }
    return replace(found, card={**found.card, **card})
