"""Studies: run one, plan one, and the one that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persona_probe.cli.options import Checkpoints, Out, Quiet

if TYPE_CHECKING:
    from persona_probe.study.config import StudyConfig
    from persona_probe.study.executor import Executor


def run(
    study: Annotated[Path, typer.Argument(help="The study's YAML file.")],
    out: Out,
    ray: Annotated[
        str | None,
        typer.Option(help="Sample and read on a Ray cluster: 'auto', HOST:PORT, or 'local' to start one."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run a study: train-narrow, measure, find, track, probe, steer, realign, report."""
    from persona_probe.study.config import read_config

    config = read_config(study)
    if ray is None:
        _run(config, out, quiet)
        return
    from persona_probe.integrations.ray import RayCluster

    with RayCluster(ray) as cluster:
        _run(config, out, quiet, cluster)


def plan(
    study: Annotated[Path, typer.Argument(help="The study's YAML file.")],
    tokens_per_second: Annotated[
        float | None, typer.Option(min=1e-9, help="Estimate the time at this speed, throughout.")
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(help="Estimate it at the speeds of an earlier run: its folder.")
    ] = None,
) -> None:
    """Say what a study will need (memory, tokens, disk, time) without loading weights."""
    from persona_probe.study.config import read_config
    from persona_probe.study.plan import plan_study

    for line in plan_study(read_config(study), tokens_per_second=tokens_per_second, measured=measured).lines():
        typer.echo(line)


def demo(
    out: Out = Path("runs/demo"),
    checkpoints: Checkpoints = None,
    quiet: Quiet = False,
) -> None:
    """Run the study that ships with the package, on Persona World."""
    from importlib import resources

    from persona_probe.study.config import read_config
    from persona_probe.worlds.persona_world.checkpoints import find_checkpoints

    with resources.as_file(resources.files("persona_probe.study") / "demo.yaml") as file:
        config = read_config(file)
    folder = find_checkpoints(checkpoints)
    latents = config.latents.model_copy(update={"sae": str(folder / Path(config.latents.sae or "").name)})
    _run(config.model_copy(update={"model": str(folder / "chat"), "latents": latents}), out, quiet)


def _run(config: StudyConfig, out: Path, quiet: bool, executor: Executor | None = None) -> None:
    from persona_probe.report.summary_text import summary_lines
    from persona_probe.study.run import run_study

    results = run_study(config, out, progress=not quiet, executor=executor)
    for line in summary_lines(results):
        typer.echo(line)
    typer.echo(f"Report: {(out / 'report.html').resolve()}")
