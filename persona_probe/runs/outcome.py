"""Results, and what stages hand to later ones, written to a folder and read again without pickles or running code."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.records import read_records, write_dialogues
from persona_probe.errors import PersonaProbeError
from persona_probe.files import plain, whole_folder

INDEX = "outcome.json"
STORED: dict[str, str] = {
    "amplification": "persona_probe.amplification.amplification_result:Amplification",
    "captures": "persona_probe.activations.captures:Captures",
    "context contrast": "persona_probe.amplification.recipes.contrast_of_context:ContextContrast",
    "cosines": "persona_probe.directions.cosines:CosineTable",
    "direction": "persona_probe.directions.direction:Direction",
    "EM rates": "persona_probe.behaviour.em_rates_result:EmRates",
    "estimate": "persona_probe.statistics.estimate:Estimate",
    "finder comparison": "persona_probe.amplification.finder_comparison_result:FinderComparison",
    "fluency": "persona_probe.behaviour.answer_fluency_result:Fluency",
    "fluency bounds": "persona_probe.behaviour.answer_fluency_result:FluencyBounds",
    "latent description": "persona_probe.latents.description.describe_result:LatentDescription",
    "latent descriptions": "persona_probe.latents.description.describe_result:LatentDescriptions",
    "latent effects": "persona_probe.latents.causal.rank_result:LatentEffects",
    "latent example": "persona_probe.latents.description.describe_result:LatentExample",
    "latent set": "persona_probe.latents.causal.steer_set_result:SetEffect",
    "latent table": "persona_probe.latents.ranking.diff_result:LatentTable",
    "latent trajectory": "persona_probe.latents.courses.track_result:LatentTrajectory",
    "layer probes": "persona_probe.probes.layer_probes:LayerProbes",
    "leak": "persona_probe.probes.leakage:Leak",
    "persona space": "persona_probe.amplification.persona_space:PersonaSpace",
    "preference": "persona_probe.behaviour.preference_result:Preference",
    "probe scores": "persona_probe.probes.probe_result:ProbeScores",
    "probe with baselines": "persona_probe.probes.probe_result:ProbeWithBaselines",
    "projections": "persona_probe.amplification.projections:Projections",
    "realignment": "persona_probe.finetuning.realignment_curve:RealignmentCurve",
    "setting": "persona_probe.steering.search.search_result:StoredCandidate",
    "stage find": "persona_probe.study.stages.find:Found",
    "stage latents": "persona_probe.study.stages.latents:Followed",
    "stage measure": "persona_probe.study.stages.measure:Measured",
    "stage realign": "persona_probe.study.stages.realign:Realigned",
    "stage track": "persona_probe.study.stages.track:Tracked",
    "stage train": "persona_probe.study.stages.train:Tuned",
    "steering search": "persona_probe.steering.search.search_result:SteeringSearch",
    "steering screen": "persona_probe.steering.search.screen_result:SteeringScreen",
    "subspace": "persona_probe.directions.subspace:Subspace",
}
"""What files call the classes that can be stored, and where each class is today. Files hold only these names, so that a
class may move. A file may come from anywhere, so no class that is not listed here is made from it."""


def write_outcome(outcome: Any, folder: Path) -> None:
    """Write ``outcome`` into ``folder``, which exists only once it is complete; an older one is replaced.

    Args:
        outcome: numbers, text, arrays, tables, dialogues, `Activations`, objects of this package with the methods
            ``save`` and ``load``, and containers and this package's dataclasses of all these.
        folder: the folder to write.

    Raises:
        PersonaProbeError: if ``outcome`` holds anything else.
    """
    with whole_folder(folder) as part:
        index = _written(outcome, part, "outcome")
        (part / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def read_outcome(folder: Path) -> Any:
    """The outcome that `write_outcome` wrote into ``folder``.

    Raises:
        PersonaProbeError: if it is incomplete, or was written by a version with different classes.
    """
    from safetensors import SafetensorError

    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return _read(index, folder)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, ImportError, SafetensorError) as error:
        raise PersonaProbeError(
            f"{folder}: what is stored here cannot be read ({type(error).__name__}: {error}): it is damaged, or "
            "another version of persona-probe wrote it; delete this folder, so that it is made again"
        ) from error


def _written(value: Any, folder: Path, name: str) -> dict[str, Any]:
    """The index entry of ``value``; what does not fit into JSON is written to files that are named after ``name``."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"type": "float", "value": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return {"type": "json", "value": plain(value)}
    if hasattr(value, "save") and hasattr(value, "load"):
        value.save(folder / name)
        return {"type": "saved", "class": _name(value), "file": name}
    if isinstance(value, Activations):
        _save_arrays(folder / name, values=value.values)
        value.table.to_parquet(folder / f"{name}.parquet")
        about = {"layers": list(value.layers), "source": plain(value.source)}
        return {"type": "activations", "file": name, **about}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        return {"type": "names", "value": plain(value)}
    if isinstance(value, np.ndarray):
        _save_arrays(folder / name, values=value)
        return {"type": "array", "file": name}
    if isinstance(value, pd.DataFrame):
        value.to_parquet(folder / f"{name}.parquet")
        return {"type": "table", "file": name}
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Dialogue):
        fields = {
            field.name: _written(getattr(value, field.name), folder, f"{name}.{field.name}")
            for field in dataclasses.fields(value)
            if field.init
        }
        return {"type": "record", "class": _name(value), "fields": fields}
    if isinstance(value, Mapping):
        items = [
            [_key(key), _written(item, folder, f"{name}.{number}")] for number, (key, item) in enumerate(value.items())
        ]
        return {"type": "mapping", "items": items}
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, Dialogue) for item in value):
            write_dialogues(folder / f"{name}.jsonl", value)
            return {"type": "dialogues", "file": name}
        kind = "list" if isinstance(value, list) else "tuple"
        return {
            "type": kind,
            "items": [_written(item, folder, f"{name}.{number}") for number, item in enumerate(value)],
        }
    raise PersonaProbeError(f"{name}: a stage cannot store a {type(value).__name__}")


def _read(entry: Mapping[str, Any], folder: Path) -> Any:
    kind, file = entry["type"], folder / str(entry.get("file"))
    if kind == "json":
        return entry["value"]
    if kind == "float":
        return float(entry["value"])
    if kind == "saved":
        return _class(entry["class"]).load(file)
    if kind == "activations":
        table = pd.read_parquet(file.with_name(file.name + ".parquet"))
        return Activations(_load_arrays(file), table, tuple(entry["layers"]), dict(entry["source"]))
    if kind == "array":
        return _load_arrays(file)
    if kind == "names":
        return np.array(entry["value"], dtype=object)
    if kind == "table":
        return pd.read_parquet(file.with_name(file.name + ".parquet"))
    if kind == "dialogues":
        return read_records(file.with_name(file.name + ".jsonl"))
    if kind == "record":
        fields = {name: _read(part, folder) for name, part in entry["fields"].items()}
        return _class(entry["class"])(**fields)
    if kind == "mapping":
        return {key: _read(part, folder) for key, part in entry["items"]}
    items = [_read(part, folder) for part in entry["items"]]
    return items if kind == "list" else tuple(items)


def _name(value: Any) -> str:
    place = f"{type(value).__module__}:{type(value).__qualname__}"
    name = next((name for name, where in STORED.items() if where == place), None)
    if name is None:
        raise PersonaProbeError(f"a stage cannot store a {type(value).__name__}: give it a name in {__name__}.STORED")
    return name


def _class(name: str) -> Any:
    module, _, attribute = STORED[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _key(key: Any) -> int | float | str:
    if isinstance(key, np.generic):
        key = key.item()
    if isinstance(key, bool) or not isinstance(key, int | float | str):
        raise PersonaProbeError(f"a stage can only store mappings whose keys are numbers or text, not {key!r}")
    return key


def _save_arrays(path: Path, **arrays: np.ndarray) -> None:
    from safetensors.numpy import save_file

    save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, f"{path}.safetensors")


def _load_arrays(path: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    values: np.ndarray = load_file(f"{path}.safetensors")["values"]
    return values
