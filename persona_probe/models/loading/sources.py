"""Folders and Hub repositories: whether something loadable is there, its files, and its libraries' errors in words."""

from __future__ import annotations

import contextlib
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from persona_probe.errors import PersonaProbeError, library_message
from persona_probe.models.loading.gguf_header import is_gguf, read_header
from persona_probe.models.loading.gguf_model import by_itself
from persona_probe.models.loading.real import located, missing, real_folder, real_origin
from persona_probe.models.loading.spec import LoadOptions
from persona_probe.models.quiet import without_transformers_bars

ADAPTER_CONFIG = "adapter_config.json"
_OF_LIBRARIES = (
    OSError,
    ValueError,
    KeyError,
    RuntimeError,
    ImportError,
    AssertionError,
    EOFError,
    struct.error,
    SafetensorError,
)
"""What transformers, tokenizers and torch raise for folders that they cannot load."""


def repository_file(path: str | Path, name: str, revision: str | None = None) -> Path | None:
    """The file ``name`` of a local folder or of a Hub repository (then in the cache), or None if it has none."""
    path = located(path)
    folder = Path(path)
    if folder.exists() or is_gguf(path) or str(path).startswith((".", "/", "~")) or str(path).count("/") > 1:
        return folder / name if (folder / name).is_file() else None
    try:
        file = cached_file(
            str(path),
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except OSError:
        return None
    return None if file is None else Path(file)


def check_source(source: str) -> None:
    """Raise if ``source`` is neither a model folder, a GGUF file nor of the form of a Hub id, saying what is there."""
    folder = Path(located(source))
    if folder == real_folder() and real_origin() is None:
        raise PersonaProbeError(missing())
    if is_gguf(source) and not folder.is_dir():
        read_header(folder)
        return
    if folder.is_dir() and not (folder / "config.json").is_file():
        check_holds_no_adapters(folder)
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        files = sorted(entry.name for entry in folder.iterdir() if is_gguf(entry))
        hint = f"; to load a GGUF file, give the file: {folder / files[0]}" if files else ""
        raise PersonaProbeError(f"{source}: is not a model folder: it has no config.json (it holds {inside}){hint}")
    if folder.is_file():
        raise PersonaProbeError(
            f"{source}: is a file; give the folder that holds the model's config.json, or a file whose name ends in "
            ".gguf"
        )
    if not folder.is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise PersonaProbeError(f"{source}: no such folder, and not a Hub id of the form owner/name")


def check_holds_no_adapters(folder: Path) -> None:
    """Raise if the folders in ``folder`` are adapters: PEFT writes each adapter that has a name into its own."""
    if inner := sorted(entry.parent.name for entry in folder.glob(f"*/{ADAPTER_CONFIG}")):
        raise PersonaProbeError(
            f"{folder}: holds {len(inner)} adapters in folders of their own ({', '.join(inner)}); give one of them, "
            f"such as {folder / inner[0]}"
        )


def hub_arguments(options: LoadOptions) -> dict[str, Any]:
    """The arguments with which everything in the repository is read."""
    return {"revision": options.get("revision"), "trust_remote_code": options.get("trust_remote_code", False)}


@contextlib.contextmanager
def pretrained(source: str, options: LoadOptions) -> Iterator[tuple[str, dict[str, Any]]]:
    """What ``from_pretrained`` takes for ``source``: a folder or a Hub id, and keyword arguments."""
    if not is_gguf(source) or Path(source).is_dir():
        yield located(source), hub_arguments(options)
        return
    file = Path(source)
    with by_itself(file) as folder:
        yield folder, {**hub_arguments(options), "revision": None, "gguf_file": file.name}


def read_config(source: str, options: LoadOptions) -> Any:
    """The model's config, as transformers reads it from a folder, a Hub repository or a GGUF file."""
    with pretrained(source, options) as (folder, arguments):
        return AutoConfig.from_pretrained(folder, **arguments)


@contextlib.contextmanager
def explained(
    source: str, options: LoadOptions, what: str = "cannot be loaded as a causal language model"
) -> Iterator[None]:
    """Turn errors of transformers about ``source`` into one line that says what to do."""
    try:
        with without_transformers_bars():
            yield
    except PersonaProbeError:
        raise
    except pickle.UnpicklingError as error:
        raise PersonaProbeError(f"{source}: {what}: {unsafe(error)}") from error
    except _OF_LIBRARIES as error:
        code = "trust_remote_code" in str(error) and not options.get("trust_remote_code")
        hint = "; it needs its own Python code: read that, then load with trust_remote_code=True" if code else ""
        raise PersonaProbeError(f"{source}: {what}: {library_message(error)}{hint}") from error


def unsafe(error: Exception) -> str:
    """Why a pickle is not read: torch's own message advises to run whatever code is in it."""
    reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line or "Unsupported" in line), "")
    return (
        "its .bin file is a pickle that holds more than plain weights, and unpickling it would run the code in it"
        f"{f' ({reason})' if reason else ''}; convert it to safetensors where you trust it"
    )
