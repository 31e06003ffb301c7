"""Kinds of intervention by name."""

from __future__ import annotations

import importlib
import reprlib
from typing import Any

from persona_probe.errors import PersonaProbeError
from persona_probe.steering.interventions.intervention import Intervention

KINDS: dict[str, str] = {
    "add": "persona_probe.steering.interventions.add:Add",
    "ablate": "persona_probe.steering.interventions.ablate:Ablate",
    "mean-ablate": "persona_probe.steering.interventions.mean_ablate:MeanAblate",
    "clamp": "persona_probe.steering.interventions.clamp:Clamp",
    "cap": "persona_probe.steering.interventions.cap:Cap",
    "ablate-everywhere": "persona_probe.steering.interventions.ablate_everywhere:AblateEverywhere",
    "gate": "persona_probe.steering.interventions.gate:Gate",
    "latents": "persona_probe.latents.steering:EditLatents",
}
"""Where the class of each kind is; rooms below this one may add kinds."""
_DIRECTED = ("add", "ablate", "mean-ablate", "clamp", "cap")
"""The kinds that are made from a direction and settings."""


def kind_class(kind: str) -> type[Intervention]:
    """The class of the kind ``kind``.

    Raises:
        PersonaProbeError: if there is no such kind; the message lists all kinds.
    """
    if kind not in KINDS:
        raise PersonaProbeError(f"unknown kind of intervention {kind!r}: choose one of {', '.join(KINDS)}")
    module, _, name = KINDS[kind].partition(":")
    kind_of: type[Intervention] = getattr(importlib.import_module(module), name)
    return kind_of


def intervention(kind: str, *what: Any, **settings: Any) -> Intervention:
    """An intervention of the kind ``kind``; settings that are None count as not given.

    Raises:
        PersonaProbeError: for an unknown kind, or a setting that the kind does not take.
    """
    made = kind_class(kind)
    if kind not in _DIRECTED:
        raise PersonaProbeError(
            f"kind={kind!r} needs more than a direction and settings: make it with "
            f"pp.{KINDS[kind].split('.')[1]}.{made.__name__}(...), and give that to steer"
        )
    given = {name: value for name, value in settings.items() if value is not None}
    taken = _settings(made)
    for name, value in given.items():
        if name not in taken:
            users = [other for other in _DIRECTED if name in _settings(kind_class(other))]
            raise PersonaProbeError(
                f"kind={kind!r} does not take {name} ({name}={reprlib.repr(value)} was given)"
                + (
                    f"; it is taken by {', '.join(map(repr, users))} only"
                    if users
                    else f"; it takes {', '.join(taken)}"
                )
            )
    return made(*what, **given)


def _settings(made: type[Intervention]) -> list[str]:
    code = made.__init__.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [name for name in names if name != "self"]
