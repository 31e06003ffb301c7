"""The folder that a trained SAE goes to: one that can be made, and appears when everything is finished."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from persona_probe.errors import PersonaProbeError
from persona_probe.files import write_text

_CONFIG = "cfg.json"


def check_out(out: str | Path) -> Path:
    """The folder to make.

    Raises:
        PersonaProbeError: if it has no name, holds something, or what a stopped training left lies beside it.
    """
    folder = Path(out)
    if folder.name in ("", ".."):
        raise PersonaProbeError(f"out is {str(out)!r}, which names no new folder; give one, for example 'my-sae'")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise PersonaProbeError(f"{folder}: exists and is not empty; give a new folder, so that nothing is lost")
    part = _part(folder)
    if part.exists() and not (part.is_dir() and not any(part.iterdir())):
        raise PersonaProbeError(
            f"{part}: holds what an earlier training that was stopped has left; move it away if you need it, or "
            "delete it"
        )
    return folder


@contextlib.contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A folder beside ``folder`` to write into, made at once; it goes away if anything fails in the block.

    Raises:
        PersonaProbeError: if it cannot be made.
    """
    part = _part(folder)
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PersonaProbeError(f"{part}: cannot be made ({error.strerror}); give another folder") from error
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextlib.contextmanager
def finished(part: Path, folder: Path) -> Iterator[None]:
    """Give ``part`` the name ``folder`` after the block; if that fails, or it is interrupted, ``part`` stays.

    Raises:
        PersonaProbeError: naming ``part``, whatever went wrong.
    """
    try:
        yield
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except Exception as error:  # whatever it is, hours of training must not be lost
        said = str(error) or type(error).__name__
        raise PersonaProbeError(
            f"the SAE is trained, and finishing it failed: {said}; its weights are in {part}, where load_sae reads them"
        ) from error
    except KeyboardInterrupt as stopped:
        stopped.add_note(f"The SAE is trained; its weights are in {part}, where load_sae reads them.")
        raise


def add_to_card(part: Path, more: Mapping[str, Any]) -> None:
    """Put more into ``metadata.persona_probe`` of an SAE's config; the weights are not written again."""
    config = json.loads((part / _CONFIG).read_text(encoding="utf-8"))
    config["metadata"]["persona_probe"].update(more)
    write_text(part / _CONFIG, json.dumps(config))


def _part(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.part")
