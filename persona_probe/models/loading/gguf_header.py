"""What a GGUF file says about itself, read without its weights, and why it cannot be loaded as a model.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from persona_probe.errors import PersonaProbeError

_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Values of a fixed size, by GGUF's number of their type."""
_TEXT, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_LONGEST = 2**30
"""Bytes of the longest text that is believed; more means that the file is damaged."""
_DAMAGED = (struct.error, ValueError, TypeError, ArithmeticError, LookupError, MemoryError, RecursionError)
"""What reading a header raises if it says something impossible."""
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_OTHER_KINDS = {
    "controlvector": "is a control vector, not a model; read it with persona_probe.integrations.read_gguf",
    "clip": "is the part of a vision model that reads images (mmproj), without a language model; give the file of the "
    "language model",
}
"""Architectures of files that hold no language model."""


@dataclass(frozen=True)
class GgufHeader:
    """The metadata of a GGUF file.

    Attributes:
        metadata: values by key; of an array only its length.
        kinds: how many tensors are of each type: ``{"Q4_1": 210, "F32": 61}``.
        ends: how many bytes the file must have, so that its last tensor is whole.
    """

    metadata: dict[str, Any]
    kinds: dict[str, int]
    ends: int

    @property
    def quantized(self) -> list[str]:
        """The types of tensors whose values are rounded to a few bits, the most frequent first."""
        return [kind for kind in self.kinds if kind not in ("F64", "F32", "F16", "BF16")]


def is_gguf(source: str | Path) -> bool:
    """Whether ``source`` is named as a GGUF file."""
    return str(source).lower().endswith(".gguf")


def imported_gguf() -> ModuleType:
    """The package gguf.

    Raises:
        PersonaProbeError: if it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise PersonaProbeError("gguf is not installed; install it with: pip install 'persona-probe[gguf]'") from error
    module: ModuleType = gguf
    return module


def read_header(file: Path) -> GgufHeader:
    """The header of a GGUF file that holds a whole language model.

    Raises:
        PersonaProbeError: if gguf is not installed; the file is missing, not a GGUF file, damaged or cut short; it is
            one part of several; or it holds something else than a language model with its tokenizer.
    """
    gguf = imported_gguf()
    if not file.is_file():
        raise PersonaProbeError(f"{file}: no such file")
    if (part := _PART.search(file.name)) is not None and int(part[2]) > 1:
        raise PersonaProbeError(_split(file, int(part[1]), int(part[2])))
    with file.open("rb") as stream:
        magic = stream.read(4)
        if magic != b"GGUF":
            raise PersonaProbeError(f"{file}: is not a GGUF file: it begins with {magic!r}, not with b'GGUF'")
        try:
            header = _header(stream, gguf)
        except _DAMAGED as error:
            raise PersonaProbeError(f"{file}: is damaged, or cut short within its header: {error}") from error
    _check(file, header)
    return header


def _check(file: Path, header: GgufHeader) -> None:
    """Raise if the file is not a whole language model with a tokenizer."""
    about = header.metadata
    architecture, kind = about.get("general.architecture"), about.get("general.type", "model")
    if isinstance(count := about.get("split.count"), int) and count > 1:
        raise PersonaProbeError(_split(file, int(about.get("split.no", 0)) + 1, count))
    if (other := _OTHER_KINDS.get(str(architecture))) is not None:
        raise PersonaProbeError(f"{file}: {other}")
    if kind == "mmproj":
        raise PersonaProbeError(f"{file}: {_OTHER_KINDS['clip']}")
    if kind != "model":
        raise PersonaProbeError(
            f"{file}: holds {kind!r}, not a model (general.type); of an adapter, give the PEFT folder that it was made "
            "from, with the model as base"
        )
    if (there := file.stat().st_size) < header.ends:
        raise PersonaProbeError(
            f"{file}: is cut short: it has {there:,} bytes, and its tensors need {header.ends:,}; copy or download it "
            "again"
        )


def _split(file: Path, number: int, count: int) -> str:
    return (
        f"{file}: is part {number} of {count} of a model, and parts cannot be loaded; join them with llama.cpp's "
        "`llama-gguf-split --merge FIRST_PART WHOLE.gguf`, and give the whole file"
    )


def _header(stream: BinaryIO, gguf: ModuleType) -> GgufHeader:
    """The header that follows the four bytes ``GGUF``."""
    (version,) = _unpack(stream, "I")
    if version not in _VERSIONS:
        raise ValueError(f"GGUF version {version}; versions 2 and 3 (little-endian) can be read")
    n_tensors, n_values = _unpack(stream, "QQ")
    metadata = {}
    for _ in range(n_values):
        key = _text(stream)
        metadata[key] = _value(stream, _unpack(stream, "I")[0])
    kinds: Counter[str] = Counter()
    ends = 0
    for _ in range(n_tensors):
        name = _text(stream)
        (n_axes,) = _unpack(stream, "I")
        if n_axes > 8:
            raise ValueError(f"tensor {name!r} has {n_axes} axes")
        shape = _unpack(stream, f"{n_axes}Q")
        number, offset = _unpack(stream, "IQ")
        kind = gguf.GGMLQuantizationType(number)
        kinds[kind.name] += 1
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        ends = max(ends, offset + prod(shape) // per_block * block_bytes)
    alignment = metadata.get("general.alignment", 32)
    starts = -(-stream.tell() // alignment) * alignment
    return GgufHeader(metadata, dict(kinds.most_common()), starts + ends)


def _value(stream: BinaryIO, kind: int) -> Any:
    """A value; of an array its length."""
    if kind == _TEXT:
        return _text(stream)
    if kind != _ARRAY:
        if kind not in _FORMATS:
            raise ValueError(f"a value of the unknown type {kind}")
        return _unpack(stream, _FORMATS[kind])[0]
    of, count = _unpack(stream, "IQ")
    if of in _FORMATS:
        stream.seek(count * struct.calcsize(_FORMATS[of]), 1)
    else:
        for _ in range(count):
            _value(stream, of)
    return count


def _text(stream: BinaryIO) -> str:
    (length,) = _unpack(stream, "Q")
    if length > _LONGEST:
        raise ValueError(f"a text of {length:,} bytes")
    text = stream.read(length)
    if len(text) < length:
        raise ValueError("it ends within a text")
    return text.decode("utf-8")


def _unpack(stream: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(f"<{form}", stream.read(struct.calcsize(f"<{form}")))
