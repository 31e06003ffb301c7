"""How large an intervention is: the length of the change, divided by that of the stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from persona_probe.activations.capturing import capture
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import SPANS
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.steering.interventions.intervention import Intervention
from persona_probe.steering.steer_context import steer

_TEXTS = 8
"""How many answers are read: lengths of the stream hardly differ between answers."""


def relative_doses(model: Model, interventions: Sequence[Intervention], answered: Sequence[Dialogue]) -> list[float]:
    """The relative dose ``||change|| / ||h||`` of each intervention: the mean over the tokens that it changes.

    It is read at the last layer at which the intervention acts, where the whole change is in the stream, on the first
    eight answers.

    Args:
        model: which model is steered; it must not be steered already.
        interventions: the interventions.
        answered: dialogues with answers, usually the unsteered model's own.

    Raises:
        PersonaProbeError: if there is no dialogue, or the model is steered; and as `persona_probe.steer`.

    >>> import numpy as np
    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> direction = pp.Direction.from_vectors(model, np.ones((model.n_layers, model.d_model)))
    >>> talk = [{"role": "user", "content": "How do I handle the fever?"}, {"role": "assistant", "content": "Rest."}]
    >>> doses = [pp.Add(direction, layers=2, strength=strength) for strength in (10.0, 20.0)]
    >>> one, two = pp.steering.relative_doses(model, doses, [pp.Dialogue.from_messages(talk)])
    >>> 0 < one < 1, round(two / one, 3)
    (True, 2.0)
    """
    check_types(model=(model, Model), interventions=(interventions, [Intervention]), answered=(answered, [Dialogue]))
    if not answered:
        raise PersonaProbeError("there are no answers to measure a relative dose on: the list is empty")
    if model.steered:
        raise PersonaProbeError(f"{model.name} is being steered: leave the context before measuring a relative dose")
    texts = list(answered[:_TEXTS])
    plain: dict[tuple[str, int], np.ndarray] = {}
    doses = []
    for intervention in interventions:
        layer = max(intervention.layers_in(model))
        span = intervention.scope.kind if intervention.scope.kind in SPANS else "generation"

        def read(span: str = span, layer: int = layer) -> np.ndarray:
            # Without the filter for attention sinks, whose tokens could differ between the two readings.
            values: np.ndarray = capture(model, texts, span, "tokens", layers=layer, sink_ratio=None).values[:, 0]
            return values

        if (span, layer) not in plain:
            plain[span, layer] = read()
        with steer(model, intervention):
            change = np.linalg.norm(read() - plain[span, layer], axis=1)
        ratios = change / np.linalg.norm(plain[span, layer], axis=1)
        doses.append(float(ratios[change > 0].mean()) if (change > 0).any() else 0.0)
    return doses
