"""Control vectors in GGUF files, as llama.cpp and repeng use them.

A file of architecture ``controlvector`` with one float32 tensor ``direction.{k}``, ``(d_model,)``, for each layer, and
the metadata ``controlvector.model_hint`` (an architecture) and ``controlvector.layer_count``. What ``k`` means, by
repository:

- llama.cpp adds ``direction.{k}`` to the output of block k, counted from 0: our layer k (``src/llama-adapter.cpp``,
  ``build_cvec`` in ``src/models/llama.cpp``). It refuses ``direction.0`` and any tensor of another name
  (``common_control_vector_load_one`` in ``common/common.cpp``).
- repeng measures ``direction.{k}`` at ``hidden_states[k+1]``: our layer k, except the last block's, which Hugging Face
  returns after the final norm (``batched_get_hiddens`` in ``repeng/extract.py``).
- llama.cpp's own ``cvector-generator`` measures at the output of block i and writes ``direction.{i+1}``
  (``tools/cvector-generator/mean.hpp``, ``pca.hpp``): measured at our layer k-1, used one block later.
- EasySteer measures ``direction.{k}`` at the output of block k, before the final norm also at the last one: our layer
  k. It writes ``controlvector.method`` and its settings (``normalize``, ``token_pos``, ...) too
  (``StatisticalControlVector.export_gguf``), which repeng and ``cvector-generator`` do not.
"""

from __future__ import annotations

import contextlib
import json
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from persona_probe.directions.direction import Direction
from persona_probe.directions.formats.assembly import Rows, published_direction
from persona_probe.directions.layer_vectors import checked_layers
from persona_probe.errors import PATH, PersonaProbeError, PersonaProbeWarning, check_types
from persona_probe.files import plain, whole_file
from persona_probe.models.loading.gguf_header import imported_gguf
from persona_probe.models.model import Model
from persona_probe.steering.interventions.add import Add

_ARCHITECTURE = "controlvector"
_CARD = "persona_probe.card"
_TENSOR = re.compile(r"direction\.(\d{1,9})")
_COUNT = f"{_ARCHITECTURE}.layer_count"
_TAKEN = ("format", "file", "sha256", "layer_convention", "left_out", "written_by", "written_by_guessed")
"""What the card says itself about every file."""
_DAMAGED = (ValueError, LookupError, TypeError, OverflowError, MemoryError, struct.error)

_ELSEWHERE = ("attention_heads", "router_logits")
"""The values of EasySteer's ``component`` for vectors that are not in the residual stream."""

WrittenBy = Literal["repeng", "cvector-generator", "other"]
_CONVENTIONS = {
    "persona-probe": "direction.k is our layer k, at whose output llama.cpp adds it",
    "repeng": "direction.k was measured at hidden_states[k+1] and is added at the output of block k: our layer k",
    "cvector-generator": "direction.k was measured at the output of block k-1: our layer k-1 (llama.cpp adds it at k)",
    "other": "direction.k is taken as our layer k, at whose output llama.cpp adds it",
}


def read_gguf(
    model: Model, path: str | Path, *, written_by: WrittenBy | None = None, allow_unrelated: bool = False
) -> Direction:
    """The direction of a control vector.

    Args:
        model: the model it belongs to: layers and width are checked, and its hash goes into the card. The file's
            ``model_hint`` is an architecture's name, which goes into the card unchecked.
        path: the ``.gguf`` file.
        written_by: ``repeng`` (its last layer, measured after the final norm, is left out), ``cvector-generator`` of
            llama.cpp (layers are moved by one, to where they were measured), or ``other`` (EasySteer, for example):
            every layer as llama.cpp uses it. By default, files of `write_gguf` are read as they were written, with the
            card that they contain; files with exactly the metadata (and layers) that repeng or ``cvector-generator``
            write, as theirs; and all others as ``other``.
        allow_unrelated: of a file that `write_gguf` wrote for an unrelated model: warn instead of refusing.

    Returns:
        A direction with vectors ``(layer, d_model)``; layers whose vector is zero (which in llama.cpp means that there
        is none) are left out. ``card["source"]`` holds the file's metadata (``method``, ``normalize``, ...).

    Raises:
        PersonaProbeError: if gguf is not installed; the file is missing, damaged or not a control vector; layers, width
            or values do not fit the model; the vectors are not of the residual stream; or the file's card is of an
            unrelated model.

    Warns:
        PersonaProbeWarning: if a file that does not say who wrote it is read as one of repeng and its last layer is
            left out, or as one of ``cvector-generator``.
    """
    check_types(model=(model, Model), path=(path, PATH))
    file = Path(path)
    if written_by is not None and written_by not in _CONVENTIONS:
        raise PersonaProbeError(f"unknown written_by {written_by!r}: choose 'repeng', 'cvector-generator' or 'other'")
    if not file.is_file():
        raise PersonaProbeError(f"{file}: no such file")
    fields, vectors, signed = _read(file)
    card = _card(fields[_CARD], file) if _CARD in fields else None
    writer = (
        "persona-probe" if card is not None else str(written_by or _guessed(fields, sorted(vectors), signed, model))
    )
    about = {"written_by": writer, "written_by_guessed": card is None and written_by is None, **_metadata(fields, file)}
    left_out, kept = [], {}
    for number, vector in sorted(vectors.items()):
        layer = number - 1 if writer == "cvector-generator" else number
        if not 0 <= layer < model.n_layers:
            raise PersonaProbeError(
                f"{file}: direction.{number} would be our layer {layer}; {model.name} has layers 0 to "
                f"{model.n_layers - 1}: the file is of another model, or was not written by {writer!r}"
            )
        if vector.shape != (model.d_model,):
            raise PersonaProbeError(
                f"{file}: direction.{number} has shape {vector.shape}; {model.name} needs ({model.d_model},)"
            )
        if writer == "repeng" and layer == model.n_layers - 1:
            left_out.append(f"direction.{number}: measured after the final norm, which is not our layer {layer}")
        elif not vector.any():
            left_out.append(f"direction.{number}: zero")
        else:
            kept[layer] = vector
    if not kept:
        raise PersonaProbeError(f"{file}: no layer is left of {len(vectors)}: {'; '.join(left_out) or 'it has none'}")
    if about["written_by_guessed"] and (writer == "cvector-generator" or model.n_layers - 1 in vectors.keys() - kept):
        warnings.warn(
            f"{file}: does not say which program wrote it, and is read as one of {writer}: {_CONVENTIONS[writer]}"
            f"{'; left out: ' * bool(left_out)}{'; '.join(left_out)}. If that is wrong, give written_by=",
            PersonaProbeWarning,
            stacklevel=2,
        )
    rows = Rows(np.stack(list(kept.values())), tuple(kept), _CONVENTIONS[writer], left_out, about)
    read = published_direction(rows, file, model, {"format": "gguf"})
    if card is None:
        return read
    # `write_gguf` wrote the file: where its card names the model, that is not replaced by the model given here.
    filled_in = {} if card.get("family") else read.card
    ours = replace(read, card={**filled_in, **card, "source": read.card["source"]})
    ours.check_model(model, allow_unrelated=allow_unrelated)
    return ours


def write_gguf(
    direction: Direction | Add, path: str | Path, *, model_hint: str, layers: Sequence[int] | None = None
) -> Path:
    """Write a control vector for llama.cpp (``--control-vector FILE``) and repeng (``ControlVector.import_gguf``).

    llama.cpp adds *every* layer of the file at once, each at the output of its block, times ``--control-vector-
    scaled``: to add one layer, write only one. The card is stored as metadata, which other readers ignore.

    Args:
        direction: its raw vectors are written, float32, layer l as ``direction.{l}``; of an addition (`Add`) at the
            scope ``all``, its vectors times its strength, at its layers.
        path: the file; it appears under this name only when complete.
        model_hint: the architecture: for repeng Hugging Face's ``model_type``, for llama.cpp its own name for it.
        layers: which layers; default all. llama.cpp has no layer 0.

    Returns:
        The path.

    Raises:
        PersonaProbeError: if gguf is not installed, a layer is not in the direction, layer 0 is among the layers, or an
            addition is not made at all tokens.
    """
    check_types(direction=(direction, Direction, Add), path=(path, PATH), model_hint=(model_hint, str))
    gguf = imported_gguf()
    if isinstance(direction, Add):
        if not direction.scope.everywhere or layers is not None:
            raise PersonaProbeError(
                f"{path}: llama.cpp adds at every token, and an addition names its own layers: give one with "
                f"scope='all' (it is {str(direction.scope)!r}), and no layers="
            )
        layers = direction.direction.layers if isinstance(direction.layers, str) else direction.layers
        direction = direction.strength * direction.direction
    chosen = direction.layers if layers is None else checked_layers(layers)
    file = Path(path)
    if 0 in chosen:
        rest = [layer for layer in chosen if layer != 0]
        raise PersonaProbeError(
            f"{file}: llama.cpp refuses control vectors of layer 0; leave it out, with layers={rest or '[...]'}"
        )
    vectors = {layer: np.ascontiguousarray(direction.at(layer), dtype=np.float32) for layer in chosen}
    with whole_file(file) as part, contextlib.closing(gguf.GGUFWriter(str(part), _ARCHITECTURE)) as writer:
        writer.add_string(f"{_ARCHITECTURE}.model_hint", model_hint)
        writer.add_int32(f"{_ARCHITECTURE}.layer_count", len(chosen))
        writer.add_string(_CARD, json.dumps(plain(direction.select(chosen).card)))
        for layer, vector in vectors.items():
            writer.add_tensor(f"direction.{layer}", vector)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return file


def _read(file: Path) -> tuple[dict[str, Any], dict[int, np.ndarray], bool]:
    """The metadata, each ``direction.{k}`` by k, and whether the count of layers is a signed integer."""
    gguf = imported_gguf()
    try:
        reader = gguf.GGUFReader(str(file))
        fields = {name: entry.contents() for name, entry in reader.fields.items()}
        signed = _COUNT in fields and reader.fields[_COUNT].types[-1] == gguf.GGUFValueType.INT32
        tensors = {tensor.name: (tensor.tensor_type, np.array(tensor.data)) for tensor in reader.tensors}
    except _DAMAGED as error:
        raise PersonaProbeError(f"{file}: cannot be read as a GGUF file: {error}") from error
    if fields.get("general.architecture") != _ARCHITECTURE:
        seen = fields.get("general.architecture")
        raise PersonaProbeError(f"{file}: its architecture is {seen!r}; a control vector's is {_ARCHITECTURE!r}")
    kinds = gguf.GGMLQuantizationType
    vectors: dict[int, np.ndarray] = {}
    for name, (kind, values) in tensors.items():
        number = _TENSOR.fullmatch(name)
        if number is None or int(number[1]) in vectors:
            raise PersonaProbeError(f"{file}: tensor {name!r} is not called direction.NUMBER, or occurs twice")
        if kind not in (kinds.F32, kinds.F16, kinds.F64):
            raise PersonaProbeError(f"{file}: {name} is of type {kind.name}; control vectors are F32 (or F16, F64)")
        vectors[int(number[1])] = values.astype(np.float32)
    return fields, vectors, signed


def _guessed(fields: Mapping[str, Any], numbers: Sequence[int], signed: bool, model: Model) -> WrittenBy:
    """Who wrote a file: repeng and ``cvector-generator`` write the same metadata, but the count as another type."""
    own = {name for name in fields if not name.startswith(("GGUF.", "general."))}
    if own != {f"{_ARCHITECTURE}.model_hint", _COUNT} or fields[_COUNT] != len(numbers):
        return "other"
    if not signed:
        return "repeng"
    return "cvector-generator" if list(numbers) == list(range(1, model.n_layers)) else "other"


def _metadata(fields: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The file's metadata, for the card: of ``controlvector.method`` the name is ``method``, others are in full.

    Raises:
        PersonaProbeError: if it says that the vectors are not of the residual stream.
    """
    about: dict[str, Any] = {"model_hint": None}
    for name, value in fields.items():
        if name not in (_CARD, "general.architecture") and not name.startswith("GGUF."):
            short = name.removeprefix(f"{_ARCHITECTURE}.")
            about[name if short in _TAKEN else short] = plain(value)
    if about.get("component") in _ELSEWHERE:
        raise PersonaProbeError(
            f"{file}: its vectors were measured at {about['component']} ({_ARCHITECTURE}.component), not in the "
            "residual stream, where directions are added and projected on"
        )
    return about


def _card(text: Any, file: Path) -> dict[str, Any]:
    try:
        card = json.loads(text)
    except (TypeError, ValueError) as error:
        raise PersonaProbeError(f"{file}: its {_CARD} is not JSON: {error}") from error
    if not isinstance(card, dict):
        raise PersonaProbeError(f"{file}: its {_CARD} is not an object: {text[:80]!r}")
    return card
