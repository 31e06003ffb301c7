"""The state of a run, read from its folder, and what `run` would do next."""

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
from persona_probe.study.sources import optional_of, stored_identity
from persona_probe.study.stages.order import STAGES


def status_lines(folder: str | Path) -> list[str]:
    """The state of a run: one line per stage, and what to do next.

    Raises:
        PersonaProbeError: if ``folder`` is not a run folder.
    """
    path = Path(folder)
    file = path / "study.yaml"
    if not file.is_file():
        raise PersonaProbeError(
            f"{path}: holds no study.yaml, so it is not a run folder; start a study there with `persona-probe run "
            f"STUDY.yaml --out {path}`"
        )
    config = read_config(file)
    records = {name: StageRecord.read(path, name) for name in (stage.name for stage in STAGES if stage.applies(config))}
    lines = [f"{config.title} ({config.model})"]
    for name, record in records.items():
        state = f"finished, {duration(record.seconds):>7}, started {record.started}" if record else "not finished"
        lines.append(f"  {name:<18} {state}")
    stored = sum(1 for _ in answers_folder(path).glob("*.jsonl"))
    lines.append(f"  {stored} draws of answers are stored")
    if all(records.values()) and (path / "report.html").is_file():
        return [*lines, f"Report: {(path / 'report.html').resolve()}"]
    return [*lines, f"Resume with: persona-probe run {file} --out {path}"]


def dry_run_lines(config: StudyConfig, out: str | Path) -> list[str]:
    """The plan, and for every stage whether it would run; loads no weights and writes nothing.

    Raises:
        PersonaProbeError: for bad input, as `persona_probe.run_study` would.
    """
    states = study_states(config, out)
    lines = [*plan_study(config).lines(), "", f"In {out}:"]
    lines += [f"  {state.stage:<18} {'finished' if state.finished else f'runs ({state.reason})'}" for state in states]
    return [*lines, "  report             is written"]


def study_states(config: StudyConfig, out: str | Path) -> list[State]:
    """The state of every stage of ``config`` in the folder ``out``."""
    folder = RunFolder.open(out)
    material = gather(config)
    identity = stored_identity(folder.path, config)
    context = Context(config, material, folder, {}, material.judge)
    pipeline = Pipeline(STAGES, context, identity or {}, optional_of(config))
    if identity is not None:
        return pipeline.states()
    reason = "the model has not been read in this folder yet" if folder.path.exists() else "not finished yet"
    return [State(stage.name, finished=False, reason=reason) for stage in pipeline.stages]
