"""The command for reports: write a run's report again, compare several runs, or export a run for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.errors import PersonaProbeError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders that `run` or `demo` wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File for the comparison (default: comparison.html here).")
    ] = None,
    paper: Annotated[
        Path | None, typer.Option("--paper", help="Export every figure and table into this folder instead.")
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="With --paper: formats of the figures, from pdf,svg,png (with commas).")
    ] = "pdf",
    width: Annotated[
        str, typer.Option("--width", help="With --paper: widths of the figures, from column,page (with commas).")
    ] = "column,page",
) -> None:
    """Write a run's report again, a comparison of several runs, or (with --paper) files for a paper."""
    for run in runs:
        if not (run / "results.json").is_file():
            begun = (run / "study.yaml").is_file()
            raise PersonaProbeError(
                f"{run}: this run is not finished; `persona-probe status {run}` says how to resume it"
                if begun
                else f"{run}: holds no results.json, so it is not a run folder; give folders that `persona-probe run` "
                "wrote"
            )
    if paper is not None:
        _export(runs, paper, form, width)
        return
    if len(runs) == 1 and out is None:
        from persona_probe.report.run_page import render_report

        typer.echo(f"Report: {render_report(runs[0]).resolve()}")
        return
    from persona_probe.report.comparison.comparison_page import compare_runs

    typer.echo(f"Comparison: {compare_runs(runs, out or Path('comparison.html')).resolve()}")


def _export(runs: list[Path], folder: Path, form: str, width: str) -> None:
    from persona_probe.report.comparison.compared_run import run_names
    from persona_probe.report.paper.folder import write_paper_folder

    formats, widths = ([part.strip() for part in text.split(",") if part.strip()] for text in (form, width))
    for run, name in zip(runs, run_names(runs), strict=True):
        target = folder if len(runs) == 1 else folder / name
        index = write_paper_folder(run, target, formats=formats, widths=widths)
        typer.echo(f"For a paper: {index.resolve()}")
