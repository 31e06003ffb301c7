"""Where a run stands, read from its folder, and what `run` would do next."""

from __future__ import annotations

from pathlib import Path

from persona_probe.errors import PersonaProbeError
from persona_probe.figures.text import duration
from persona_probe.runs.config import StudyConfig
from persona_probe.runs.config_file import read_config
from persona_probe.runs.folder import RunFolder
from persona_probe.runs.stage_record import StageRecord, answers_folder
from persona_probe.study.context import Context
from persona_probe.study.material import gather
from persona_probe.study.pipeline import Pipeline, State
from persona_probe.study.plan import plan_study
from persona_probe.study.sources import kept_identity, optional_of
from persona_probe.study.stages.order import STAGES


def status_lines(folder: str | Path) -> list[str]:
    """One line a stage, and what to do next.

    Raises:
        PersonaProbeError: if ``folder`` holds no run.
    """
    path = Path(folder)
    file = path / "study.yaml"
    if not file.is_file():
        raise PersonaProbeError(
            f"{path}: holds no study.yaml, so it is no run; start one with `persona-probe run STUDY.yaml --out {path}`"
        )
    config = read_config(file)
    records = {name: StageRecord.read(path, name) for name in (stage.name for stage in STAGES if stage.applies(config))}
    said = [f"{config.title} ({config.model})"]
    for name, record in records.items():
        state = f"finished, {duration(record.seconds):>7}, started {record.started}" if record else "not finished"
        said.append(f"  {name:<18} {state}")
    kept = sum(1 for _ in answers_folder(path).glob("*.jsonl"))
    said.append(f"  {kept} draws of answers kept")
    if all(records.values()) and (path / "report.html").is_file():
        return [*said, f"Report: {(path / 'report.html').resolve()}"]
    return [*said, f"Go on with: persona-probe run {file} --out {path}"]


def dry_run_lines(config: StudyConfig, out: str | Path) -> list[str]:
    """The plan, and for every stage whether it would run; no weights are loaded and nothing is written.

    Raises:
        PersonaProbeError: for bad input, as `persona_probe.run_study` would.
    """
    states = study_states(config, out)
    said = [*plan_study(config).lines(), "", f"In {out}:"]
    said += [f"  {one.stage:<18} {'finished' if one.finished else f'runs ({one.reason})'}" for one in states]
    return [*said, "  report             is written"]


def study_states(config: StudyConfig, out: str | Path) -> list[State]:
    """Where every stage of ``config`` stands in the folder ``out``."""
    folder = RunFolder.open(out)
    material = gather(config)
    identity = kept_identity(folder.path, config)
    context = Context(config, material, folder, {}, material.judge)
    pipeline = Pipeline(STAGES, context, identity or {}, optional_of(config))
    if identity is not None:
        return pipeline.states()
    reason = "the model was not read in this folder yet" if folder.path.exists() else "not finished yet"
    return [State(stage.name, finished=False, reason=reason) for stage in pipeline.stages]
