"""persona-probe: find, track and steer the personas behind emergent misalignment.

    import persona_probe as pp

Names are loaded on first use, so importing the package costs nothing and opening finished results needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persona_probe.activations.activations import Activations
    from persona_probe.activations.capture import capture, capture_pair, capture_together
    from persona_probe.activations.moments import Moments
    from persona_probe.activations.store.reading import ActivationStore
    from persona_probe.activations.store.writing import capture_to_store
    from persona_probe.amplification.amplification import Captures, measure_amplification
    from persona_probe.amplification.contrast_of_context import contrast_of_context
    from persona_probe.behaviour.em_rate import em_rate, em_rates
    from persona_probe.behaviour.judging import Judge, judge_answers
    from persona_probe.dialogue.dialogue import Dialogue
    from persona_probe.dialogue.reading import read_dialogues
    from persona_probe.directions.direction import Direction
    from persona_probe.directions.find import find_direction
    from persona_probe.errors import PersonaProbeError
    from persona_probe.finetuning.lora import LoraSettings, finetune
    from persona_probe.models.adapters import with_adapter
    from persona_probe.models.loading import load
    from persona_probe.models.model import Model
    from persona_probe.models.pair import ModelPair, load_pair
    from persona_probe.models.snapshots import Snapshots, load_snapshots
    from persona_probe.probes.cross_validation import cross_validate_probe
    from persona_probe.steering.steer import steer
    from persona_probe.study.config import StudyConfig, read_config
    from persona_probe.study.run import run_study

__version__ = "0.1.0"

_WHERE = {
    "ActivationStore": "activations.store.reading",
    "Activations": "activations.activations",
    "Captures": "amplification.amplification",
    "Dialogue": "dialogue.dialogue",
    "Direction": "directions.direction",
    "Judge": "behaviour.judging",
    "LoraSettings": "finetuning.lora",
    "Model": "models.model",
    "ModelPair": "models.pair",
    "Moments": "activations.moments",
    "PersonaProbeError": "errors",
    "Snapshots": "models.snapshots",
    "StudyConfig": "study.config",
    "capture": "activations.capture",
    "capture_pair": "activations.capture",
    "capture_together": "activations.capture",
    "capture_to_store": "activations.store.writing",
    "contrast_of_context": "amplification.contrast_of_context",
    "cross_validate_probe": "probes.cross_validation",
    "em_rate": "behaviour.em_rate",
    "em_rates": "behaviour.em_rate",
    "find_direction": "directions.find",
    "finetune": "finetuning.lora",
    "judge_answers": "behaviour.judging",
    "load": "models.loading",
    "load_pair": "models.pair",
    "load_snapshots": "models.snapshots",
    "measure_amplification": "amplification.amplification",
    "read_config": "study.config",
    "read_dialogues": "dialogue.reading",
    "run_study": "study.run",
    "steer": "steering.steer",
    "with_adapter": "models.adapters",
}
__all__ = [
    "ActivationStore",
    "Activations",
    "Captures",
    "Dialogue",
    "Direction",
    "Judge",
    "LoraSettings",
    "Model",
    "ModelPair",
    "Moments",
    "PersonaProbeError",
    "Snapshots",
    "StudyConfig",
    "capture",
    "capture_pair",
    "capture_to_store",
    "capture_together",
    "contrast_of_context",
    "cross_validate_probe",
    "em_rate",
    "em_rates",
    "find_direction",
    "finetune",
    "judge_answers",
    "load",
    "load_pair",
    "load_snapshots",
    "measure_amplification",
    "read_config",
    "read_dialogues",
    "run_study",
    "steer",
    "with_adapter",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module 'persona_probe' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"persona_probe.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, for completion."""
    return sorted([*globals(), *__all__])
