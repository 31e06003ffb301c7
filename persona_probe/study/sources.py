"""The models, the judge and the SAE that a study depends on: their content, and whether their files have changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from persona_probe.models.loading.real import located
from persona_probe.models.loading.sources import ADAPTER_CONFIG
from persona_probe.models.model import Model
from persona_probe.runs.config import StudyConfig
from persona_probe.runs.digest import digest_files
from persona_probe.runs.folder import RunFolder
from persona_probe.runs.judge_settings import JudgeApi, JudgeModel
from persona_probe.runs.stage_record import versions

_FILE = "stages/model.json"
_OF_CALLS = {"prompts", "api_key_env", "most_failures", "concurrency", "requests_per_minute", "prices"}
"""The settings of a judge behind an API that change no score."""


def identity(model: Model) -> dict[str, Any]:
    """What a model's answers and activations depend on, apart from its input: code, weights, template and date."""
    template = model.template
    day = template.written_date
    return {
        "persona_probe": versions()["persona-probe"],
        "model": model.fingerprint(),
        "model's chat template": template.hash(),
        "model's date": None if day is None else day.isoformat(),
    }


def identity_of(model: Model, config: StudyConfig) -> dict[str, Any]:
    """What every stage depends on: `identity` of the model before, and how the models are loaded."""
    return {**identity(model), **_loading(config)}


def store_identity(folder: RunFolder, config: StudyConfig, identity: dict[str, Any], parameters: int) -> None:
    """Write the identity, the size and the state of the model's files: a later plan need not load the model."""
    stored = {"source": config.model, "files": _files(config), "identity": identity, "parameters": parameters}
    folder.write_json(_FILE, stored)


def stored_parameters(folder: Path) -> int | None:
    """How many parameters the model of a run has; None if the folder does not say."""
    try:
        return int(json.loads((folder / _FILE).read_text(encoding="utf-8"))["parameters"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return None


def stored_identity(folder: Path, config: StudyConfig) -> dict[str, Any] | None:
    """The identity that was written, if the model's files and the template have not changed since; else None."""
    try:
        stored = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        if stored["source"] != config.model or stored["files"] != _files(config):
            return None
        return {**stored["identity"], **_loading(config), "persona_probe": versions()["persona-probe"]}
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return None


def _loading(config: StudyConfig) -> dict[str, Any]:
    return {f"loading.{name}": value for name, value in config.loading.model_dump(mode="json").items()}


def _files(config: StudyConfig) -> Any:
    template = config.loading.chat_template
    content = digest_files(template) if template is not None and template.is_file() else None
    return [stamp(config.model, config.loading.revision), content]


def optional_of(config: StudyConfig) -> dict[str, Any]:
    """What only some stages depend on, by name: the judge and the SAE."""
    judge: Any = config.judge
    if isinstance(judge, JudgeModel):
        prompts = None if judge.prompts is None else digest_files(judge.prompts)
        local = Path(located(judge.model)).exists()
        # For a Hub repository its revision, not its files in the cache: they are downloaded only on first use.
        files = stamp(judge.model, judge.revision) if local else None
        settings = judge.model_dump(mode="json", exclude={"batch_size", "device", "prompts"})
        judge = {**settings, "files": files, "prompts": prompts}
    if isinstance(judge, JudgeApi):
        prompts = None if judge.prompts is None else digest_files(judge.prompts)
        judge = {**judge.model_dump(mode="json", exclude=_OF_CALLS), "prompts": prompts}
    sae, folder = config.latents.sae, Path(config.latents.sae or "")
    local = sae is not None and folder.exists()
    return {"judge": judge, "sae": digest_files(folder) if local else [sae, config.latents.sae_id]}


def stamp(source: str, revision: str | None) -> Any:
    """What shows that a model changed, without loading it: its files' names, sizes and times, or its cached commit."""
    folder = Path(located(source))
    if folder.is_file():
        return [folder.name, (at := folder.stat()).st_size, at.st_mtime_ns]
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [[path.relative_to(folder).as_posix(), (at := path.stat()).st_size, at.st_mtime_ns] for path in files]
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for file in ("config.json", ADAPTER_CONFIG):
        try:
            cached = try_to_load_from_cache(source, file, revision=revision)
        except HFValidationError:  # not an id, so a folder that does not exist; loading it reports that
            return None
        if isinstance(cached, str):
            return Path(cached).parent.name
    return None
