"""The command that says what finished answer files show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Quiet


def verdict(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Answers, judged or not: CSV, JSONL, vLLM, batches, ..."),
    ],
    before: Annotated[
        str | None, typer.Option(help="The model before: its name in the files, or a folder or Hub id of its weights.")
    ] = None,
    after: Annotated[str | None, typer.Option(help="The model after, in the same way (default: all others).")] = None,
    control: Annotated[str | None, typer.Option(help="The benign fine-tune, in the same way.")] = None,
    direction: Annotated[
        Path | None, typer.Option(help="A saved direction; with weights, its amplification is measured.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="The column that names topics.")] = None,
    trained_topic: Annotated[str | None, typer.Option(help="The topic of the training data.")] = None,
    trained_on: Annotated[Path | None, typer.Option(help="The training data, for talk of its topic elsewhere.")] = None,
    definition: Annotated[str, typer.Option(help="The EM rate of the five lines: betley, turner or tan.")] = "betley",
    requests: Annotated[Path | None, typer.Option(help="The input file of a batch.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS: the file's column for one of ours. Can be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The page (default: verdict.html next to the first file).")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Say in five lines and a page what finished answer files show, cannot show, and lack."""
    from persona_probe.errors import PersonaProbeError
    from persona_probe.study.files_verdict import verdict as verdict_on

    columns = {}
    for text in column or []:
        ours, equals, theirs = text.partition("=")
        if not (ours and equals and theirs):
            raise PersonaProbeError(f"--column: {text!r} is not OURS=THEIRS, such as answer=completion")
        columns[ours] = theirs
    page = out or files[0].parent / "verdict.html"
    found = verdict_on(
        files,
        before=before,
        after=after,
        control=control,
        direction=direction,
        topic=topic,
        trained_topic=trained_topic,
        trained_on=trained_on,
        definition=definition,
        columns=columns or None,
        requests=requests,
        page=page,
        progress=not quiet,
    )
    for line in found.lines:
        typer.echo(line)
    typer.echo(f"Page: {page.resolve()}")
