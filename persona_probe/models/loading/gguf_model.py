"""A GGUF file as an ordinary model: its weights unpacked, its own tokenizer, and a note of where they came from."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading.gguf_header import GgufHeader, read_header
from persona_probe.models.loading.origin import WEIGHTS_FROM

_SINGLE_DIGITS = ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b")
"""llama.cpp's names of the rule of GPT-2 with every digit by itself, which transformers 5.23 does not know."""
_AS_GPT2 = ("gpt-2", "mpt", "olmo", "jais", "phi-2")
"""llama.cpp's names of the rule of GPT-2, which transformers uses wherever it does not know the name."""


@contextlib.contextmanager
def by_itself(file: Path) -> Iterator[str]:
    """A folder that holds a link to ``file`` and nothing else.

    Transformers would otherwise take a tokenizer or a generation config that lies next to the file for the file's own.
    """
    with TemporaryDirectory(prefix="persona-probe-") as folder:
        link = Path(folder) / file.name
        try:
            link.symlink_to(file.resolve())
        except OSError:  # Windows allows links to files only to some users
            os.link(file.resolve(), link)
        yield folder


def unpacking(file: Path) -> dict[str, Any]:
    """What ``from_pretrained`` of a model takes in addition, so that its weights are unpacked into a plain model.

    Raises:
        PersonaProbeError: if transformers is too old to be told so.
    """
    try:
        from transformers import GgufConfig
    except ImportError as error:
        raise PersonaProbeError(
            f"{file}: GGUF files are read by transformers 5.23 and newer; update it: pip install --upgrade transformers"
        ) from error
    return {"quantization_config": GgufConfig(dequantize=True)}


def origin_of(file: Path, header: GgufHeader) -> dict[str, Any]:
    """Which file weights were unpacked from: its name, SHA-256, and how many tensors are of which type."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"file": file.name, "sha256": digest, "tensors": header.kinds, "dequantized": bool(header.quantized)}


def note_origin(hf: PreTrainedModel, file: Path) -> None:
    """Write into the model's config which file it was unpacked from, and into both that this is its name."""
    hf.config.name_or_path = hf.name_or_path = str(file)
    setattr(hf.config, WEIGHTS_FROM, origin_of(file, read_header(file)))


def split_as_written(tokenizer: PreTrainedTokenizerBase, file: Path) -> str | None:
    """Make a GGUF file's tokenizer split text by the rule that the file names (``tokenizer.ggml.pre``).

    Transformers splits as GPT-2 does where it does not know the rule, which silently gives other tokens: for SmolLM2
    two line ends before a digit become two tokens, of which the model saw one in training.

    Returns:
        A remark if the rule is not known here either.
    """
    about = read_header(file).metadata
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rule = about.get("tokenizer.ggml.pre")
    if backend is None or about.get("tokenizer.ggml.model") != "gpt2" or rule in (None, *_AS_GPT2):
        return None
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        return None  # transformers knows the rule
    if rule not in _SINGLE_DIGITS:
        return (
            f"{file.name} splits text by the rule {rule!r} (tokenizer.ggml.pre), which is not known here: text is "
            "split as by GPT-2, so that some tokens may be others than in training; give the model's own tokenizer "
            "(tokenizer=)"
        )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return None
