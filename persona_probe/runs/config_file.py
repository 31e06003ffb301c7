"""A study's settings as a file: the ones a run was made with, the schema for editors, and templates to start from."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from persona_probe.errors import PersonaProbeError
from persona_probe.files import write_text
from persona_probe.runs.config import StudyConfig
from persona_probe.worlds.persona_world.checkpoints import FOLDER, find_checkpoints

SCHEMA = "study.schema.json"
_TEMPLATES = "persona_probe.runs.templates"


def config_as_yaml(config: StudyConfig) -> str:
    """All settings, defaults included, as YAML that `persona_probe.read_config` reads."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def schema() -> dict[str, Any]:
    """The JSON schema of study files, for editors that complete and check YAML."""
    made = StudyConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "persona-probe study"}


def template_names() -> list[str]:
    """The kinds of study that there is a template for."""
    return sorted(
        file.name.removesuffix(".yaml") for file in resources.files(_TEMPLATES).iterdir() if file.name.endswith(".yaml")
    )


def write_template(kind: str, out: Path) -> list[Path]:
    """Write a commented study file and, beside it, the schema that it names for editors.

    Persona World's models are named where they are: relative to this folder where it has them (in a clone).

    Args:
        kind: one of `template_names`.
        out: the YAML file, which must not exist yet.

    Returns:
        What was written.

    Raises:
        PersonaProbeError: for an unknown kind, or if ``out`` exists.
    """
    if kind not in template_names():
        raise PersonaProbeError(f"there is no template {kind!r}: choose one of {', '.join(template_names())}")
    if out.exists():
        raise PersonaProbeError(f"{out}: exists already; give another --out, so that nothing is lost")
    text = (resources.files(_TEMPLATES) / f"{kind}.yaml").read_text(encoding="utf-8")
    if FOLDER.as_posix() in text:
        text = text.replace(FOLDER.as_posix(), find_checkpoints().as_posix())
    beside = out.with_name(SCHEMA)
    write_text(beside, _schema_text())
    write_text(out, f"# yaml-language-server: $schema={SCHEMA}\n{text}")
    return [out, beside]


def _schema_text() -> str:
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name(SCHEMA).write_text(_schema_text(), encoding="utf-8")
