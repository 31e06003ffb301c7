"""Steering a model: interventions on the tokens of their scopes, while a context is open."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.directions.subspace import Subspace
from persona_probe.errors import PersonaProbeError, check_types, what_is
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import Layers
from persona_probe.models.stream.scope import Scope
from persona_probe.steering.engine import Engine
from persona_probe.steering.interventions.ablate_everywhere import AblateEverywhere
from persona_probe.steering.interventions.intervention import Intervention, Targets
from persona_probe.steering.registry import intervention

Steering = Intervention | Sequence[Intervention | None]


@contextlib.contextmanager
def steer(
    model: Model,
    what: Direction | Subspace | Steering,
    *,
    layers: Layers | None = None,
    strength: float | None = None,
    kind: str | None = None,
    target: Targets | Activations | None = None,
    scope: str | Scope | None = None,
    along: Direction | None = None,
    allow_unrelated: bool = False,
    **settings: Any,
) -> Iterator[None]:
    """A context in which every forward pass of ``model`` is steered, whichever way it is run.

    ``model.generate``, ``model.hf.generate``, ``model.hf(...)`` and ``model.bridge`` are all steered, and `capture`
    reads the steered stream. Contexts may be nested; if two act on the same layer, the inner one acts first.

    Args:
        model: which model is steered; hooks are removed when the context closes, also after an error or Ctrl-C.
        what: a direction with vectors ``(layer, d_model)`` (or a subspace), with the settings below; an intervention;
            or a list with one intervention, or None, for each dialogue, so that many settings run as one batch: the
            i-th belongs to the i-th dialogue given to ``model.generate`` (with ``n`` answers each, to the i-th answer)
            or to `capture`, whatever batches they are sorted into.
        layers: the layers to steer: ``"all"``, one or several.
        strength: for ``add``: the factor of the raw vector; for ``clamp``: how much of the way to the target. Default
            1.
        kind: ``add`` (default), ``ablate``, ``mean-ablate``, ``clamp`` or ``cap``
            (`persona_probe.steering.interventions`).
        target: for ``clamp``: the projection ``h . v / ||v||`` to set, one for all layers or one per layer; or
            Activations, whose mean projection is set at each layer.
        scope: ``generation`` (default: the last prompt token and all answer tokens except the last, the positions that
            decide the answer's tokens), ``response``, ``prompt``, ``last_prompt_token``, ``all``, ``first_k:8``,
            ``window:4-12``, ``positions:0,-1`` or ``turn:1`` (`persona_probe.models.stream.scope.Scope`).
        along: for the null: make the displacement along this (random) direction instead, so that both move the stream
            equally far; one layer only.
        allow_unrelated: for a direction of an unrelated model of the same width, only warn.
        **settings: further settings of the kind (``reference`` of ``mean-ablate``, ``lower`` and ``upper`` of ``cap``).

    Raises:
        PersonaProbeError: before anything runs, for an unknown kind, scope or layer, a setting that the kind does not
            take, a direction of another model or without that layer; inside the context, if a bare forward pass does
            not say where the prompt ends and the scope needs it, a dialogue has no intervention or no such position, or
            half precision overflows; and at the end, if fewer dialogues were read than there are interventions.

    Warns:
        PersonaProbeWarning: when the context closes, if no forward pass of ``model`` reached a steered layer (whatever
            else was run inside) or none of those of an intervention, its scope contained no token that was read, or its
            gate was never open.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> pair = pp.load_pair(world / "chat", world / "bad-medicine")
    >>> question = pp.Dialogue.from_messages([{"role": "user", "content": "How do I handle the fever?"}])
    >>> answers = pair.after.generate([question], pp.Sampling(max_new_tokens=20, n=4))
    >>> captures = pp.capture(pair, answers)
    >>> shift = pp.find_direction(captures.after, captures.before)
    >>> with pp.steer(pair.after, shift, layers=2, kind="clamp", target=captures.before):
    ...     steered = pp.capture(pair.after, answers, layers=2)
    >>> mean = shift.project(captures.before)[:, 2].mean()
    >>> bool((abs(shift.project(steered) - mean) < 1e-3).all())  # every token has before's mean projection
    True
    """
    check_types(model=(model, Model))
    given = {"layers": layers, "strength": strength, "kind": kind, "target": target, "scope": scope, "along": along}
    given = {name: value for name, value in {**given, **settings}.items() if value is not None}
    each = False
    if isinstance(what, AblateEverywhere) and not given:
        with what.everywhere_in(model, allow_unrelated=allow_unrelated):
            yield
        return
    if isinstance(what, Direction | Subspace):
        if layers is None:
            raise PersonaProbeError("steer needs layers=: 'all', a number or a list of numbers")
        name = str(given.pop("kind", "add"))
        steering: list[Intervention | None] = [intervention(name, what, **given)]
    elif isinstance(what, str) or not isinstance(what, Intervention | Sequence):
        raise PersonaProbeError(
            f"steer was given {what_is(what)}; give a Direction (from your own vectors: "
            "pp.Direction.from_vectors), an intervention, or a list with one for each dialogue"
        )
    elif given:
        raise PersonaProbeError(
            f"{next(iter(given))}= can only be given with a direction; an intervention has its settings already"
        )
    elif isinstance(what, Intervention):
        steering = [what]
    else:
        steering, each = _one_each(what), True
    # A list often holds the same object many times, and each check computes a fingerprint, a pass over the weights.
    with model.unchanged():
        for setting in {id(setting): setting for setting in steering if setting is not None}.values():
            setting.check(model, allow_unrelated=allow_unrelated)
    engine = Engine(model, steering, each=each)
    with model.writing(engine.write, engine.layers, engine.after_generate):
        yield
    engine.check_finite()
    engine.check_count()
    engine.warn_of_what_was_not_touched()


def _one_each(what: Sequence[Intervention | None]) -> list[Intervention | None]:
    for number, setting in enumerate(what):
        if setting is not None and not isinstance(setting, Intervention):
            raise PersonaProbeError(
                f"intervention {number} (counted from 0) is {what_is(setting)}; give interventions such as "
                "pp.Add(direction, layers=12), or None"
            )
    if all(setting is None for setting in what):
        raise PersonaProbeError("steer: no dialogue has an intervention; give at least one")
    return list(what)
