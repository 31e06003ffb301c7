"""The commands for studies: write a study file, plan it, run it, see its state; and run the demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persona_probe.cli.options import Checkpoints, Out, Quiet
from persona_probe.errors import PersonaProbeError

if TYPE_CHECKING:
    from persona_probe.runs.config import StudyConfig
    from persona_probe.study.executor import Executor

StudyFile = Annotated[Path, typer.Argument(help="The study's YAML file.")]
Speed = Annotated[float | None, typer.Option(min=1e-9, help="Estimate the time of all stages at this speed.")]
Measured = Annotated[Path | None, typer.Option(help="Estimate the time at the speeds of an earlier run: its folder.")]


def init(
    kind: Annotated[
        str, typer.Argument(help="persona-world, real-language, hub-model (a model and an adapter) or own-data.")
    ] = "persona-world",
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("study.yaml"),
    model: Annotated[
        str | None,
        typer.Option(help="The model to write into it. It is measured, and the study sized for it (not for worlds)."),
    ] = None,
) -> None:
    """Write a commented study file of about an hour, and the schema with which editors can complete it."""
    from persona_probe.runs.config_file import template_settings, write_template
    from persona_probe.study.sizing import size_template

    settings = template_settings(kind)  # raises for an unknown one, before the model is loaded
    if out.exists():
        raise PersonaProbeError(f"{out}: exists already; give another --out, so that nothing is lost")
    loaded = None
    if model is not None and settings["texts"]["world"] is None:
        from persona_probe.models.loading.load import load

        loaded = load(model)
    values, remark = size_template(kind, loaded)
    if model is not None and settings.get("steering", {}).get("layers") is not None and loaded is None:
        values = {**values, "steering.layers": None}  # those in the template are of its own model
    if model is not None and loaded is None:
        remark = f"Not measured and not sized for {model}: the numbers are those for this world's own model."
    for file in write_template(kind, out, {**values, **({} if model is None else {"model": model})}, remark=remark):
        typer.echo(f"Wrote {file}")
    if remark:
        typer.echo(remark)
    typer.echo(f"Next: persona-probe run {out} --out runs/{out.stem} --dry-run")


def run(
    study: StudyFile,
    out: Out,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Sample answers and read texts on a Ray cluster: 'auto', HOST:PORT, or 'local' (starts one)."
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run or resume a study (fine-tune, measure, find, track, compare, probe, steer, latents, realign)."""
    from persona_probe.runs.config_file import read_config

    config = read_config(study)
    if dry_run:
        from persona_probe.study.status import dry_run_lines

        for line in dry_run_lines(config, out):
            typer.echo(line)
        return
    if ray is None:
        _run(config, out, quiet)
        return
    from persona_probe.integrations.ray import RayCluster

    with RayCluster(ray) as cluster:
        _run(config, out, quiet, cluster)


def plan(study: StudyFile, tokens_per_second: Speed = None, measured: Measured = None) -> None:
    """Say what a study will need (memory, tokens, disk, time), without loading weights."""
    from persona_probe.runs.config_file import read_config
    from persona_probe.study.plan import plan_study

    for line in plan_study(read_config(study), tokens_per_second=tokens_per_second, measured=measured).lines():
        typer.echo(line)


def status(run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]) -> None:
    """Say which stages of a run are finished, and how long they took."""
    from persona_probe.study.status import status_lines

    for line in status_lines(run_folder):
        typer.echo(line)


def demo(
    out: Annotated[Path | None, typer.Option("--out", help="The run's folder (default: runs/demo[-real]).")] = None,
    real: Annotated[
        bool, typer.Option("--real", help="On a real chat model, SmolLM2-135M-Instruct, in about an hour.")
    ] = False,
    checkpoints: Checkpoints = None,
    quiet: Quiet = False,
) -> None:
    """Run the study that ships with the package, on Persona World or on a real chat model."""
    from importlib import resources

    from persona_probe.runs.config_file import read_config
    from persona_probe.worlds.persona_world.checkpoints import find_checkpoints

    if real and checkpoints is not None:
        raise typer.BadParameter("--checkpoints are Persona World's models, which --real does not use")
    name = "real-language" if real else "persona-world"
    with resources.as_file(resources.files("persona_probe.runs") / "templates" / f"{name}.yaml") as file:
        config = read_config(file)
    if not real:
        folder = find_checkpoints(checkpoints)
        latents = config.latents.model_copy(update={"sae": str(folder / Path(config.latents.sae or "").name)})
        config = config.model_copy(update={"model": str(folder / "chat"), "latents": latents})
    _run(config, out or Path("runs/demo-real" if real else "runs/demo"), quiet)


def _run(config: StudyConfig, out: Path, quiet: bool, executor: Executor | None = None) -> None:
    from persona_probe.study.run import run_study

    finished = run_study(config, out, progress=not quiet, executor=executor)
    typer.echo(finished.headline())
    typer.echo(f"Report: {finished.report.resolve()}")
