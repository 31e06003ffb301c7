"""What is written with baked weights: where they come from, as JSON and as a model card."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from persona_probe.directions.hub_folder import HUB_ID
from persona_probe.files import plain
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import LAYER_CONVENTION
from persona_probe.steering.baking.edits import Edit
from persona_probe.steering.baking.verification import Comparison
from persona_probe.steering.interventions.directed import Directed
from persona_probe.steering.interventions.intervention import Intervention

PROVENANCE = "persona_probe.json"
_VERSIONED = ("persona-probe", "torch", "transformers", "peft")
_KEEP_LIVE = """\
- Do not merge the adapter: the base may have no biases for its biases, and a head that is tied to the embedding would
  change with it."""


def provenance(
    model: Model, intervention: Intervention, form: str, architecture: str, edits: Sequence[Edit], seen: Comparison
) -> dict[str, Any]:
    """All that is known about a bake, for JSON; local paths are shortened to their last part."""
    card = intervention.direction.card if isinstance(intervention, Directed) else {}
    known = {
        "format": "persona-probe bake 1",
        "form": form,
        "architecture": architecture,
        "model": model.name,
        "model_hash": model.fingerprint(),
        "intervention": intervention.describe(),
        "direction": card,
        "layer_convention": LAYER_CONVENTION,
        "modules": [edit.module for edit in edits],
        "comparison_with_hooks": asdict(seen),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
    }
    stated: dict[str, Any] = _without_paths(plain(known))
    return stated


def write_cards(folder: Path, stated: Mapping[str, Any], base: str | None, license: str | None) -> None:
    """Write ``persona_probe.json`` and ``README.md``."""
    text = json.dumps(stated, indent=2, ensure_ascii=False, default=str) + "\n"
    (folder / PROVENANCE).write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(_readme(stated, base, license), encoding="utf-8")


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item) for item in value]
    if isinstance(value, str) and "\n" not in value and Path(value).is_absolute():
        return Path(value).name
    return value


def _readme(stated: Mapping[str, Any], base: str | None, license: str | None) -> str:
    header: dict[str, Any] = {"tags": ["persona-probe", "steering"], "pipeline_tag": "text-generation"}
    header["library_name"] = "peft" if stated["form"] == "lora" else "transformers"
    if base is not None and HUB_ID.fullmatch(base) and not Path(base).exists():
        header["base_model"] = base
    if license is not None:
        header["license"] = license
    seen, done = stated["comparison_with_hooks"], stated["intervention"]
    facts = {"model": stated["model"], "written as": f"{stated['form']} ({stated['architecture']})", **done}
    rows = [f"| {name} | {_cell(value)} |" for name, value in facts.items()]
    adapter = "This folder is a LoRA adapter: load it on its base with PEFT. " if stated["form"] == "lora" else ""
    return "\n".join(
        [
            "---",
            yaml.safe_dump(header, sort_keys=False, allow_unicode=True).rstrip(),
            "---",
            "",
            f"# {_cell(stated['model'])}, with an intervention in its weights",
            "",
            f"{adapter}The intervention acts on every token, and nothing needs to be hooked. Written by persona-probe, "
            f"read back from disk, and compared with the hooked model over {seen['tokens']} tokens: logits differ by "
            f"at most {seen['max_logit_difference']:.2g}, greedy answers are "
            f"{'the same' if seen['same_text'] else 'not all the same'}.",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
            f"All of it, with the direction's own card, is in `{PROVENANCE}`. Layers: {LAYER_CONVENTION}.",
            "",
            "## Limits",
            "",
            *([_KEEP_LIVE] if stated["form"] == "lora" else []),
            "- Steering can make a model worse in ways that were not measured.",
            "- A model that is made to misbehave (a model organism) is for research; do not deploy it.",
            "",
        ]
    )


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))
