"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from persona_probe.errors import PersonaProbeError

Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bars.")]
Checkpoints = Annotated[Path | None, typer.Option(help="Persona World's models (default: checkpoints/persona-world).")]


def layer_numbers(text: str) -> str | list[int]:
    """The layers in the option ``--layers``: ``all``, or a list of numbers that were separated by commas.

    Raises:
        PersonaProbeError: if ``text`` is anything else.
    """
    if text == "all":
        return text
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdigit():
            raise PersonaProbeError(f"--layers: {part!r} is not a layer number; give 'all', or numbers such as 3,7,11")
    return [int(part) for part in parts]
