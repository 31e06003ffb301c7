"""The folder of a trained SAE: checked before training, and complete as soon as it appears."""

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
        PersonaProbeError: if it has no name, is not empty, or a stopped training has left its folder next to it.
    """
    folder = Path(out)
    if folder.name in ("", ".."):
        raise PersonaProbeError(f"out is {str(out)!r}, which is not a folder's name; give one, for example 'my-sae'")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise PersonaProbeError(f"{folder}: exists and is not empty; give a new folder, so that nothing is lost")
    part = _part(folder)
    if part.exists() and not (part.is_dir() and not any(part.iterdir())):
        raise PersonaProbeError(
            f"{part}: contains what an earlier training left when it was stopped; move it away if you need it, or "
            "delete it"
        )
    return folder


@contextlib.contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A folder next to ``folder`` to write into, created at once; it is deleted if anything fails in the block.

    Raises:
        PersonaProbeError: if it cannot be created.
    """
    part = _part(folder)
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PersonaProbeError(f"{part}: cannot be created ({error.strerror}); give another folder") from error
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextlib.contextmanager
def finished(part: Path, folder: Path) -> Iterator[None]:
    """Give ``part`` the name ``folder`` after the block; if that fails, or it is interrupted, ``part`` stays.

    Raises:
        PersonaProbeError: if anything went wrong; ``part`` is named.
    """
    try:
        yield
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except Exception as error:  # whatever it is, hours of training must not be lost
        reason = str(error) or type(error).__name__
        raise PersonaProbeError(
            f"the SAE is trained, but finishing it failed: {reason}; its weights are in {part}, where load_sae can "
            "read them"
        ) from error
    except KeyboardInterrupt as stopped:
        stopped.add_note(f"The SAE is trained; its weights are in {part}, where load_sae can read them.")
        raise


def add_to_card(part: Path, more: Mapping[str, Any]) -> None:
    """Add ``more`` to ``metadata.persona_probe`` of an SAE's config; the weights are not written again."""
    config = json.loads((part / _CONFIG).read_text(encoding="utf-8"))
    config["metadata"]["persona_probe"].update(more)
    write_text(part / _CONFIG, json.dumps(config))


def _part(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.part")
