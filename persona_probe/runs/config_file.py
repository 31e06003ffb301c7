"""A study's settings as a file: how to read and write it, its schema for editors, and templates to start from."""

from __future__ import annotations

import difflib
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.files import write_text
from persona_probe.runs.config import ONE, SEVERAL, TEXT_FILES, StudyConfig
from persona_probe.runs.judge_settings import API, LOCAL, MAY_BE_A_KEY, NAMED, JudgeApi, JudgeModel
from persona_probe.worlds.persona_world.checkpoints import FOLDER, find_checkpoints

SCHEMA = "study.schema.json"
Value = str | int | Sequence[int] | None
"""What a template's field may be given instead."""
_COMMENT = 118
"""The number of characters of a comment's line."""
_TEMPLATES = resources.files("persona_probe.runs") / "templates"
_KINDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("judge",): (LOCAL, API, NAMED, "nullable"),
    ("after",): (ONE, SEVERAL, "nullable"),
    ("control",): (ONE, SEVERAL, "nullable"),
}
"""By field: what pydantic adds to the place of a mistake in a field of several kinds."""


def config_as_yaml(config: StudyConfig) -> str:
    """All settings, including the defaults, as YAML that `persona_probe.read_config` reads."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def schema() -> dict[str, Any]:
    """The JSON schema of study files, for editors that complete and check YAML."""
    fields = StudyConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **fields, "title": "persona-probe study"}


def template_names() -> list[str]:
    """The kinds of study for which there is a template."""
    return sorted(file.name.removesuffix(".yaml") for file in _TEMPLATES.iterdir() if file.name.endswith(".yaml"))


def template_settings(kind: str) -> dict[str, Any]:
    """The content of a template.

    Raises:
        PersonaProbeError: for an unknown kind.
    """
    return dict(yaml.safe_load(_template(kind)))


def _template(kind: str) -> str:
    if kind not in template_names():
        raise PersonaProbeError(f"there is no template {kind!r}: choose one of {', '.join(template_names())}")
    return (_TEMPLATES / f"{kind}.yaml").read_text(encoding="utf-8")


def write_template(kind: str, out: Path, values: Mapping[str, Value] | None = None, *, remark: str = "") -> list[Path]:
    """Write a commented study file and, in the same folder, the schema that it names for editors.

    The file gives the path where Persona World's models are; in a clone it is relative to the current folder.

    Args:
        kind: one of `template_names`.
        out: the YAML file, which must not exist yet.
        values: other values for some of its fields, by dotted name.
        remark: a comment for the top of the file.

    Returns:
        The two files that were written.

    Raises:
        PersonaProbeError: for an unknown kind, or if ``out`` exists.
    """
    text = _template(kind)
    if out.exists():
        raise PersonaProbeError(f"{out}: exists already; give another --out, so that nothing is lost")
    text = _with_values(text, values or {})
    if FOLDER.as_posix() in text:
        text = text.replace(FOLDER.as_posix(), find_checkpoints().as_posix())
    schema_file = write_text(out.with_name(SCHEMA), _schema_text())
    said = "".join(f"# {line}\n" for line in textwrap.wrap(remark, _COMMENT, break_on_hyphens=False))
    return [write_text(out, f"# yaml-language-server: $schema={SCHEMA}\n{said}{text}"), schema_file]


def _with_values(text: str, values: Mapping[str, Value]) -> str:
    """``text`` with other values; what stands after a value on its line remains."""
    places, lines = _lines(yaml.compose(text)), text.splitlines(keepends=True)
    for name, value in values.items():
        row = places[tuple(name.split("."))] - 1
        before, after = re.split(r"(?<=:)\s+(?:\[[^\]]*\]|\S+)", lines[row], maxsplit=1)
        lines[row] = f"{before} {json.dumps(value)}{after}"
    return "".join(lines)


def _schema_text() -> str:
    return json.dumps(schema(), indent=2) + "\n"


def read_config(path: str | Path) -> StudyConfig:
    """The settings in a study file. Relative paths in it are looked up from the folder of the file.

    Raises:
        PersonaProbeError: if the file is not valid; the message gives file, line, key and value, and for a misspelt key
            the key that was probably meant.
    """
    check_types(path=(path, PATH))
    file = Path(path)
    if not file.is_file():
        raise PersonaProbeError(f"{path}: no such file; write one with `persona-probe init`")
    try:
        text = file.read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
        lines = _lines(yaml.compose(text))
    except PersonaProbeError as error:
        raise PersonaProbeError(f"{file}, {error}") from None
    except UnicodeDecodeError as error:
        raise PersonaProbeError(f"{file}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except ValueError as error:
        raise PersonaProbeError(f"{file}: holds a value that YAML cannot read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise PersonaProbeError(f"{file}{where}: is not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict):
        raise PersonaProbeError(
            f"{file}: is {'empty' if raw is None else 'not a mapping'}; it needs at least 'model: ...'"
        )
    try:
        config = StudyConfig.model_validate(raw)
    except ValidationError as error:
        raise PersonaProbeError(f"{file}: " + "; ".join(dict.fromkeys(_explained(error, lines)))) from error
    return _resolved(config, file.parent)


def _resolved(config: StudyConfig, folder: Path) -> StudyConfig:
    """``config``, in which relative paths that exist in the study file's folder lead there."""

    def find(given: Path) -> Path:
        return folder / given if not given.is_absolute() and (folder / given).exists() else given

    def named(source: str | None) -> str | None:
        return None if source is None else str(find(Path(source)))

    def each(sources: str | tuple[str, ...] | None) -> str | tuple[str | None, ...] | None:
        return tuple(map(named, sources)) if isinstance(sources, tuple) else named(sources)

    files = {name: find(path) for name in TEXT_FILES if (path := getattr(config.texts, name))}
    template = config.loading.chat_template
    updates: dict[str, Any] = {name: each(getattr(config, name)) for name in ("model", "after", "control")}
    updates["texts"] = config.texts.model_copy(update=files)
    updates["loading"] = config.loading.model_copy(
        update={
            "chat_template": None if template is None else find(template),
            "tokenizer": named(config.loading.tokenizer),
        }
    )
    if config.latents.sae_id is None:
        updates["latents"] = config.latents.model_copy(update={"sae": named(config.latents.sae)})
    if isinstance(judge := config.judge, JudgeModel | JudgeApi):
        prompts = None if judge.prompts is None else find(judge.prompts)
        model = named(judge.model) if isinstance(judge, JudgeModel) else judge.model
        updates["judge"] = judge.model_copy(update={"model": model, "prompts": prompts})
    return config.model_copy(update=updates)


def _lines(node: yaml.Node | None, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """The line number of every key, by its path."""
    lines: dict[tuple[str, ...], int] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            place = (*prefix, str(key.value))
            if place in lines:
                raise PersonaProbeError(
                    f"line {key.start_mark.line + 1}: {'.'.join(place)!r} is given for the second time (first on "
                    f"line {lines[place]}); delete one of the two"
                )
            lines[place] = key.start_mark.line + 1
            lines |= _lines(value, place)
    return lines


def _explained(error: ValidationError, lines: dict[tuple[str, ...], int]) -> Iterator[str]:
    """Each problem, in words for the reader."""
    for problem in error.errors():
        place = tuple(str(part) for part in problem["loc"])
        if place[:1] in _KINDS:
            place = tuple(part for part in place if part not in _KINDS[place[:1]])
        yield _explain(problem, place, lines, JudgeApi if API in problem["loc"] else JudgeModel)


def _explain(problem: Any, place: tuple[str, ...], lines: dict[tuple[str, ...], int], judge: type[BaseModel]) -> str:
    known = next((lines[place[:size]] for size in range(len(place), 0, -1) if place[:size] in lines), None)
    line = f"line {known}: " if known else ""
    name = ".".join(place) or "the study"
    if problem["type"] == "extra_forbidden":
        fields = _section(place[:-1], judge).model_fields
        near = difflib.get_close_matches(place[-1], fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(fields)}"
        return f"{line}unknown key {name!r}; {hint}"
    if problem["type"] == "missing":
        return f"{line}{name!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == MAY_BE_A_KEY:
        return f"{line}{name}: {message.removeprefix(f'{place[-1]}: ')}"
    # Where the value is a whole section, it would hide the message.
    if isinstance(problem["input"], dict):
        return f"{line}{name}: {message}" if place else message
    return f"{line}{name} is {problem['input']!r}: {message}"


def _section(place: tuple[str, ...], judge: type[BaseModel]) -> type[BaseModel]:
    """The class of the settings at ``place``; ``judge`` is that of the judge."""
    section: Any = StudyConfig
    for part in place:
        section = judge if part == "judge" else section.model_fields[part].annotation
    return section  # type: ignore[no-any-return]


if __name__ == "__main__":
    Path(__file__).with_name(SCHEMA).write_text(_schema_text(), encoding="utf-8")
