"""The command line: a thin layer over the package."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer
from typer.exceptions import Abort

from persona_probe.cli.bake import bake
from persona_probe.cli.capture import capture
from persona_probe.cli.real import real
from persona_probe.cli.report import report
from persona_probe.cli.sae import sae
from persona_probe.cli.studies import demo, init, plan, run, status
from persona_probe.cli.verdict import verdict
from persona_probe.cli.warnings_shown import show_own_warnings
from persona_probe.cli.world import world
from persona_probe.errors import PersonaProbeError

app = typer.Typer(
    help="Find, track and steer the personas behind emergent misalignment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (init, run, status, plan, demo, report, verdict, capture, bake):
    app.command()(command)
app.add_typer(world, name="world")
app.add_typer(sae, name="sae")
app.add_typer(real, name="real")
_STOPPED = 130
"""Exit code after Ctrl-C, as shells expect it."""


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the libraries' own messages.")] = False,
) -> None:
    """Set up logging; ``main`` reads ``--debug`` from the arguments itself."""
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR, format="%(name)s: %(message)s")
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def main() -> None:
    """Run the command line; bad input ends with one paragraph and exit code 2, Ctrl-C with exit code 130."""
    debug = "--debug" in sys.argv
    if not debug:
        show_own_warnings()
    try:
        app()
    except Abort:
        raise SystemExit(_STOPPED) from None
    except PersonaProbeError as error:
        if debug:
            raise
        typer.echo(f"persona-probe: {error}", err=True)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code == _STOPPED:
            message = "stopped; run the same command again: what is finished is kept"
            typer.echo(f"\npersona-probe: {message}", err=True)
        raise
