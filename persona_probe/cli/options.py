"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bars.")]
Checkpoints = Annotated[Path | None, typer.Option(help="Persona World's models (default: checkpoints/persona-world).")]
