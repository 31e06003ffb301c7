"""The methods paragraph's part on which models there were and how they came to be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_probe.report.facts import facts_of
from persona_probe.report.readings import lookup
from persona_probe.report.recorded import hash_of, listed, number_of, one_line, settings_of
from persona_probe.runs.record import RunRecord


def tell_models(run: RunRecord) -> list[str]:
    """Sentences on before, after and the control."""
    facts, about = facts_of(run), settings_of(run, "training")
    before = lookup(run.manifest, "models", "before")
    if not isinstance(before, Mapping):
        return []
    told = [f"The model before was {one_line(before.get('path'))} (weights {hash_of(before)})."]
    after, control = (lookup(run.manifest, "models", name) for name in ("after", "control"))
    if facts.after is not None:
        told.append(
            f"The model after was {facts.after} (weights {hash_of(after)}); it existed and was not trained here."
        )
    elif about:
        told.append(f"It was fine-tuned on {_data(run)} with LoRA ({_lora(about)}) (weights after: {hash_of(after)}).")
    if facts.control_given is not None:
        told.append(f"The control was {facts.control_given} (weights {hash_of(control)}), which existed too.")
    elif isinstance(control, Mapping) and facts.after is not None:
        told.append(
            f"A control was fine-tuned on {_control(run)} with LoRA ({_lora(about)}) (weights {hash_of(control)}); "
            "whether the model after was trained with the same settings is not known."
        )
    elif isinstance(control, Mapping):
        told.append(
            f"A control was fine-tuned with the same settings on {_control(run)} (weights control: {hash_of(control)})."
        )
    elif facts.recorded and not facts.control:
        told.append("There was no control, so what any fine-tuning does is not told apart from what this one did.")
    return told


def _lora(about: Mapping[str, Any]) -> str:
    return listed(
        ("rank", number_of(about.get("rank"))),
        ("alpha", number_of(about.get("alpha"))),
        ("learning rate", number_of(about.get("learning_rate"))),
        ("batch size", number_of(about.get("batch"))),
        ("steps", number_of(about.get("steps"))),
        ("rows at most", number_of(about.get("rows"))),
        ("modules", one_line(about.get("target_modules"))),
    )


def _data(run: RunRecord) -> str:
    texts = settings_of(run, "texts")
    if texts.get("world") is not None:
        return f"{one_line(texts.get('persona'))} answers about {one_line(texts.get('topic'))}"
    return one_line(texts.get("narrow")) if texts.get("narrow") is not None else "narrow data"


def _control(run: RunRecord) -> str:
    texts = settings_of(run, "texts")
    if texts.get("world") is not None:
        return f"harmless answers about {one_line(texts.get('topic'))}"
    return one_line(texts.get("control")) if texts.get("control") is not None else "matched benign data"
