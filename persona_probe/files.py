"""Files that appear only when they are complete, folders with one writer at a time, and values that JSON can hold."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from persona_probe.errors import PersonaProbeError

_ATTEMPTS = 1000
LOCK = "lock"
"""Name of the lock file in a folder that is being written to."""


@contextlib.contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """A path to write to, which is renamed to ``final`` when the block has ended and its content is on the disk.

    If the block fails, nothing is left behind and an older ``final`` is unchanged. The unfinished name starts with a
    dot, so that readers of the folder ignore it. The folder is created if it is missing.
    """
    if final.is_dir():
        raise PersonaProbeError(f"{final}: is a folder; give the name of a file")
    final.parent.mkdir(parents=True, exist_ok=True)
    part = unfinished_name(final)
    try:
        yield part
        _flush(part)
        part.replace(final)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if os.name != "nt":  # where folders can be flushed: the new name must be on the disk before anything relies on it
        _flush(final.parent)


@contextlib.contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """A new, empty folder to write to, which is renamed to ``final`` when the block ends; an older one is replaced."""
    part = unfinished_name(final)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def unfinished_name(final: Path) -> Path:
    """The name that `whole_file` and `whole_folder` use for ``final`` until it is complete."""
    return final.with_name(f".{final.name}.part")


def write_text(final: Path, text: str) -> Path:
    """Write a text file completely or not at all, with a question mark for what UTF-8 cannot hold (lone surrogates)."""
    with whole_file(final) as part:
        # Bytes, so that line ends are the same on every machine.
        part.write_bytes(text.encode("utf-8", errors="replace"))
    return final


def write_json(final: Path, content: Any) -> Path:
    """Write a JSON file completely or not at all; NaN and infinities become null."""
    return write_text(final, json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock ``folder`` (created if missing) against other writers; the system unlocks it when this process ends.

    Raises:
        PersonaProbeError: if another process is writing into it; the message names the process.
    """
    lock = FileLock(folder.resolve() / LOCK, timeout=0)
    attempts = 0
    while not lock.is_locked:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise PersonaProbeError(
                f"{folder}: {_owner(folder / LOCK)} is writing into this folder; wait until it has finished, or stop it"
            ) from None
        except (FileNotFoundError, FileExistsError) as error:
            # The last writer has just removed its empty folder: between two steps of making it, or of locking it.
            if folder.is_file():
                raise PersonaProbeError(f"{folder}: is a file; give a folder") from None
            attempts += 1
            if attempts == _ATTEMPTS:  # no writer removes it so often: it cannot be made (in /proc, on a lost disk)
                raise PersonaProbeError(f"{folder}: this folder cannot be made: {error}; give another") from error
    path = folder / LOCK
    with contextlib.suppress(OSError):  # where nobody, its owner included, may write into a locked file
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    try:
        yield
    finally:
        # Removed before it is released: whoever waits for it sees that the file has no name any more, and tries again.
        with contextlib.suppress(OSError):
            path.unlink()
        lock.release()
        with contextlib.suppress(OSError):  # so that a refused capture leaves no empty folder behind
            folder.rmdir()


def plain(value: Any) -> Any:
    """``value`` in JSON's own types: NumPy's become Python's, tables become lists of rows, NaN and infinities null."""
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in value.to_dict("records")]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _owner(lock: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return lock.read_text(encoding="utf-8").strip() or "another process"
    return "another process"


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
