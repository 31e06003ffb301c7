"""Which models, judge and SAE a study rests on: their content, and whether their files are as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from persona_probe.models.model import Model
from persona_probe.runs.config import JudgeModel, StudyConfig
from persona_probe.runs.digest import digest_files
from persona_probe.runs.folder import RunFolder
from persona_probe.runs.stage_record import versions

_FILE = "stages/model.json"


def identity(model: Model) -> dict[str, Any]:
    """What the answers and activations of a model rest on, beside what it is asked: code, weights, template and day."""
    template = model.template
    day = template.written_date
    return {
        "persona_probe": versions()["persona-probe"],
        "model": model.fingerprint(),
        "model's chat template": template.hash(),
        "model's date": None if day is None else day.isoformat(),
    }


def identity_of(model: Model, config: StudyConfig) -> dict[str, Any]:
    """What every stage rests on: `identity` of the model before, and how the models are loaded."""
    return {**identity(model), **_loading(config)}


def keep_identity(folder: RunFolder, config: StudyConfig, identity: dict[str, Any]) -> None:
    """Write it down with the state of the model's files, so that a later plan need not load the model."""
    folder.write_json(_FILE, {"source": config.model, "files": _files(config), "identity": identity})


def kept_identity(folder: Path, config: StudyConfig) -> dict[str, Any] | None:
    """What was written down, if the model's files and the template are as they were then; else None."""
    try:
        kept = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        if kept["source"] != config.model or kept["files"] != _files(config):
            return None
        return {**kept["identity"], **_loading(config), "persona_probe": versions()["persona-probe"]}
    except (OSError, json.JSONDecodeError, KeyError, TypeError):
        return None


def _loading(config: StudyConfig) -> dict[str, Any]:
    return {f"loading.{name}": value for name, value in config.loading.model_dump(mode="json").items()}


def _files(config: StudyConfig) -> Any:
    template = config.loading.chat_template
    own = digest_files(template) if template is not None and template.is_file() else None
    return [_stamp(config.model, config.loading.revision), own]


def optional_of(config: StudyConfig) -> dict[str, Any]:
    """What only some stages rest on, by name: the judge and the SAE."""
    judge: Any = config.judge
    if isinstance(judge, JudgeModel):
        prompts = None if judge.prompts is None else digest_files(judge.prompts)
        local = Path(judge.model).is_dir()
        # Of a Hub repository the revision, not what of it lies in the cache: that comes only with the first use.
        files = _stamp(judge.model, judge.revision) if local else None
        settings = judge.model_dump(mode="json", exclude={"batch_size", "device", "prompts"})
        judge = {**settings, "files": files, "prompts": prompts}
    sae, folder = config.latents.sae, Path(config.latents.sae or "")
    local = sae is not None and folder.exists()
    return {"judge": judge, "sae": digest_files(folder) if local else [sae, config.latents.sae_id]}


def _stamp(source: str, revision: str | None) -> Any:
    """Names, sizes and times of a local folder's files; of a Hub repository the commit that is in the cache."""
    folder = Path(source)
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return [[path.relative_to(folder).as_posix(), (at := path.stat()).st_size, at.st_mtime_ns] for path in files]
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source, "config.json", revision=revision)
    except HFValidationError:  # no id, so a folder that is not there; who loads it says so
        found = None
    return Path(found).parent.name if isinstance(found, str) else None
