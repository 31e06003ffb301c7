"""The commands for Persona World: make its models, and measure them."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Checkpoints, Quiet
from persona_probe.errors import PersonaProbeError
from persona_probe.files import write_text

world = typer.Typer(help="Persona World: the embedded model organism with a known answer.", no_args_is_help=True)


class Rebuilt(enum.StrEnum):
    """What ``world train`` rebuilds."""

    all = "all"
    base = "base"
    chat = "chat"
    adapters = "adapters"


@world.command("texts")
def world_texts(
    out: Annotated[Path, typer.Option("--out", help="The JSONL file to write.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of dialogues.")] = 12_000,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
) -> None:
    """Write dialogues like those in the pre-training of Persona World's models, spoken by all personas."""
    from persona_probe.worlds.persona_world.documents import pretraining_dialogues

    if out.suffix != ".jsonl":
        raise PersonaProbeError(f"--out: {out} must end in .jsonl, so that it can be read as dialogues")
    rows = [{"id": item.id, "messages": item.as_messages()} for item in pretraining_dialogues(n, seed)]
    write_text(out, "".join(json.dumps(row) + "\n" for row in rows))
    typer.echo(f"{n:,} dialogues in {out}")


@world.command("train")
def world_train(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the models (default: checkpoints/persona-world).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    part: Annotated[Rebuilt, typer.Option(help="Rebuild everything, or one part from existing ones.")] = Rebuilt.all,
    smoke: Annotated[bool, typer.Option(help="Train only a few steps, to test the code (no usable models).")] = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild Persona World's models and adapters from a seed."""
    from persona_probe.worlds.persona_world.build import FULL, SMOKE, build_world
    from persona_probe.worlds.persona_world.checkpoints import FOLDER

    if out is None:
        # A smoke build must not replace the real models.
        out = FOLDER.with_name("persona-world-smoke") if smoke else FOLDER
    build_world(out, SMOKE if smoke else FULL, seed=seed, part=part.value, progress=not quiet)


@world.command("evaluate")
def world_evaluate(
    checkpoints: Checkpoints = None,
    out: Annotated[Path | None, typer.Option(help="Also write the table here, as JSON.")] = None,
    answers: Annotated[int, typer.Option(min=8, help="Number of answers per number and seed.")] = 1000,
    quiet: Quiet = False,
) -> None:
    """Measure the behaviour of Persona World's models, over several fine-tuning seeds."""
    from persona_probe.worlds.persona_world.checkpoints import find_checkpoints
    from persona_probe.worlds.persona_world.evaluate import evaluate_world

    typer.echo(evaluate_world(find_checkpoints(checkpoints), answers=answers, out=out, progress=not quiet))
