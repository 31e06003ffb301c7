"""Capturing into a store, shard by shard, so that an interrupted capture can be resumed and gives the same bytes.

A shard depends on its own dialogues only. Its file is written first, its index part after it; each is written under
another name, flushed to disk and renamed. A shard without an index part is written again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm.auto import tqdm

from persona_probe.activations.activations import SAME_SOURCE, Activations
from persona_probe.activations.batching import tokens_per_batch_for
from persona_probe.activations.capturing import VectorReduce, capture
from persona_probe.activations.sinks import SINK_RATIO
from persona_probe.activations.store.index import column_types, known_of, write_part
from persona_probe.activations.store.reading import (
    FORMAT,
    ActivationStore,
    file_sha256,
    in_words,
    is_there,
    read_header,
    shard_files,
    store_bytes,
)
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import check_span
from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.files import LOCK, only_writer, plain, unfinished_name, whole_file, write_text
from persona_probe.models.model import Model
from persona_probe.models.stream.layers import LAYER_CONVENTION, Layers, resolve_layers

StoreType = Literal["float32", "bfloat16"]
_TORCH = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_UNASKED_BYTES = 50 * 2**30
_SHARD_BYTES = 2**30
_SHARD_DIALOGUES = 1024
_SAME_FORM = ("layers", "d_model", "dtype", "dialogues_per_shard")


def capture_to_store(
    model: Model,
    dialogues: Sequence[Dialogue],
    path: str | Path,
    span: str = "generation",
    reduce: VectorReduce = "mean",
    layers: Layers = "all",
    *,
    dtype: StoreType = "float32",
    dialogues_per_shard: int | None = None,
    tokens_per_batch: int | None = None,
    sink_ratio: float | None = SINK_RATIO,
    yes: bool = False,
    progress: bool = False,
) -> ActivationStore:
    """The store in the folder ``path`` after `capture` of ``dialogues`` into it, one shard at a time.

    Called again with the same dialogues, it writes only what is missing; with other dialogues, it appends them.
    Everything, including the size, is checked before the model runs.

    Args:
        model: which model reads.
        dialogues: what it reads.
        path: the store's folder; created if it is missing.
        span: which tokens.
        reduce: how the span's tokens become one vector, or ``"tokens"`` to store them all.
        layers: ``"all"``, one or several.
        dtype: dtype of the values on disk; ``bfloat16`` takes half the space and has about three digits.
        dialogues_per_shard: default for a new store: as many as take about 1 GiB in memory, at most 1,024.
        tokens_per_batch: padded tokens per forward pass, as in `capture`. Batches of another size round differently, so
            an unfinished capture is resumed with the number that it was started with.
        sink_ratio: which tokens are left out of means, as in `capture`.
        yes: allow more than 50 GiB.
        progress: show a bar.

    Raises:
        PersonaProbeError: if the store was started with other settings or another model, has an unfinished capture of
            other dialogues, is being written by another process, or does not fit on the disk; and if the model is being
            steered, which a store does not record.

    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> talks = [pp.Dialogue.from_text("The fever is high."), pp.Dialogue.from_text("Rest and drink water.")]
    >>> store = pp.activations.capture_to_store(model, talks, "activations", span="all", layers=[2, 3])
    >>> store
    ActivationStore('activations', 2 rows x 2 layers x 160, float32, 1 shards)
    >>> store.read(rows=[1], layers=3).values.shape
    (1, 1, 160)
    """
    check_types(model=(model, Model), path=(path, PATH))
    if model.steered:
        raise PersonaProbeError(
            f"{path}: {model.name} is being steered, which a store does not record; close pp.steer first, or use "
            "pp.capture"
        )
    if dtype not in _TORCH:
        raise PersonaProbeError(f"unknown dtype {dtype!r}: choose one of {', '.join(get_args(StoreType))}")
    if dialogues_per_shard is not None and dialogues_per_shard < 1:
        raise PersonaProbeError(f"dialogues_per_shard is {dialogues_per_shard}; give at least 1")
    if reduce not in get_args(VectorReduce):
        raise PersonaProbeError(
            f"a store cannot hold the reduction {reduce!r}: choose one of {', '.join(get_args(VectorReduce))}"
        )
    folder = Path(path)
    kind = check_span(span)
    wanted = resolve_layers(layers, model.n_layers)
    encoded = model.encode(dialogues)
    places = [item.span(kind) for item in encoded]
    known = [known_of(dialogue) for dialogue in dialogues]
    rows = [place.stop - place.start if reduce == "tokens" else 1 for place in places]
    tokens = hashlib.sha256()
    for item, place in zip(encoded, places, strict=True):
        tokens.update(np.array([len(item.input_ids), place.start, place.stop, *item.input_ids], dtype="<i8").tobytes())
    entry = {
        "digest": tokens.hexdigest(),
        "labels_digest": hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest(),
        "dialogues": len(dialogues),
        "rows": sum(rows),
        "tokens_per_batch": tokens_per_batch or tokens_per_batch_for(model.device),
    }
    settings = {
        "format": FORMAT,
        "layers": wanted,
        "d_model": model.d_model,
        "dtype": dtype,
        "dialogues_per_shard": dialogues_per_shard,
        "source": {
            "model": model.name,
            "model_hash": model.fingerprint(),
            "template_hash": model.template.hash(),
            "span": span,
            "reduce": reduce,
            "layer_convention": LAYER_CONVENTION,
            **({"today": day.isoformat()} if (day := model.template.written_date) is not None else {}),
            **({"sink_ratio": sink_ratio} if reduce == "mean" and sink_ratio is not None else {}),
        },
        "columns": column_types(known),
    }
    with only_writer(folder):
        header, mine = _settle(folder, settings, entry)
        size = header["dialogues_per_shard"]
        starts = {mine["first_shard"] + n: n * size for n in range(mine["shards"])}
        todo = {number: start for number, start in starts.items() if not is_there(folder, number)}
        if todo:
            left = sum(sum(rows[start : start + size]) for start in todo.values())
            _check_room(folder, header, len(dialogues), sum(rows), left, yes)
            _write_header(folder, header)
            _clear(folder, todo)
        before = sum(other["dialogues"] for other in header["captures"] if other["first_shard"] < mine["first_shard"])
        with tqdm(total=len(dialogues), desc="capture", unit="dialogue", disable=not progress, leave=False) as bar:
            bar.update(len(dialogues) - sum(len(dialogues[start : start + size]) for start in todo.values()))
            for number, start in todo.items():
                chunk = slice(start, start + size)
                captured = capture(
                    model,
                    dialogues[chunk],
                    span,
                    reduce,
                    wanted,
                    tokens_per_batch=mine["tokens_per_batch"],
                    sink_ratio=sink_ratio,
                )
                of_row = [row for row, count in zip(known[chunk], rows[chunk], strict=True) for _ in range(count)]
                _check_shard(captured, header, len(of_row), number)
                _write_shard(folder, number, captured, of_row, header, before + start)
                bar.update(len(dialogues[chunk]))
    return ActivationStore.open(folder, unfinished=True)


def _settle(folder: Path, settings: dict[str, Any], entry: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of ``store.json`` with this capture in it, and the entry of this capture."""
    if (folder / "store.json").exists():
        header = read_header(folder)
        _check_same_settings(folder, header, settings)
    else:
        strangers = sorted(
            {file.name for file in folder.iterdir()} - {LOCK, unfinished_name(folder / "store.json").name}
        )
        if strangers:
            raise PersonaProbeError(
                f"{folder}: is not an activation store, and not empty (it holds {strangers[0]}); give another folder"
            )
        header = {**settings, "captures": []}
        if header["dialogues_per_shard"] is None:
            in_memory = store_bytes(entry["rows"], len(settings["layers"]), settings["d_model"])
            fitting = _SHARD_BYTES * entry["dialogues"] // in_memory
            header["dialogues_per_shard"] = min(_SHARD_DIALOGUES, max(1, fitting))
    for number, earlier in enumerate(header["captures"]):
        if earlier["digest"] == entry["digest"]:
            if earlier["labels_digest"] != entry["labels_digest"]:
                raise PersonaProbeError(
                    f"{folder}: capture {number} holds the same dialogues with other ids or labels; give the ones that "
                    "it was made with, or capture into another folder"
                )
            return header, earlier
    for number, earlier in enumerate(header["captures"]):
        shards = range(earlier["first_shard"], earlier["first_shard"] + earlier["shards"])
        missing = [shard for shard in shards if not is_there(folder, shard)]
        if missing:
            raise PersonaProbeError(
                f"{folder}: capture {number} ({earlier['dialogues']} dialogues) is unfinished, {len(missing)} of "
                f"{earlier['shards']} shards are missing, and these {entry['dialogues']} dialogues are others "
                "(their token ids differ); run that capture again first, or capture these into another folder"
            )
    first = sum(earlier["shards"] for earlier in header["captures"])
    shards_of_it = -(-entry["dialogues"] // header["dialogues_per_shard"])
    mine = {**entry, "first_shard": first, "shards": shards_of_it}
    return {**header, "captures": [*header["captures"], mine]}, mine


def _check_same_settings(folder: Path, header: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    pairs = [(field, header["source"].get(field), settings["source"].get(field)) for field in SAME_SOURCE]
    pairs += [(field, header[field], settings[field]) for field in _SAME_FORM]
    for field, stored, asked in pairs:
        if stored != asked and not (field == "dialogues_per_shard" and asked is None):
            raise PersonaProbeError(
                f"{folder}: this store was started with {field} {stored!r}, now it is {asked!r}; "
                "capture into another folder, or with the settings of the store"
            )


def _check_room(folder: Path, header: Mapping[str, Any], dialogues: int, rows: int, left: int, yes: bool) -> None:
    """Raise if a capture is larger than the free disk space, or very large and ``yes`` was not given.

    Args:
        folder: the store's folder.
        header: the content of ``store.json``.
        dialogues: number of dialogues.
        rows: number of their rows.
        left: how many of these rows are still to be written.
        yes: whether a very large store was asked for.
    """
    form = (len(header["layers"]), header["d_model"], header["dtype"])
    each = f"{form[0]} layers x {form[1]} x {store_bytes(1, 1, 1, form[2])} bytes"
    what = f"{dialogues:,} dialogues"
    instead = "fewer layers take less" if form[2] == "bfloat16" else "dtype='bfloat16' takes half"
    if header["source"]["reduce"] == "tokens":
        each_has, rest = divmod(rows, dialogues)
        what = f"{rows:,} tokens of {what}" if rest else f"{what} x {each_has} tokens"
        instead = f"reduce='mean' takes {in_words(store_bytes(dialogues, *form))}"
    message = f"{folder}: {what} x {each} = {in_words(store_bytes(rows, *form))}"
    free = shutil.disk_usage(folder).free
    if (missing := store_bytes(left, *form)) > free:
        still = "" if left == rows else f", {in_words(missing)} of it still to be written"
        raise PersonaProbeError(f"{message}{still}, but the disk has {in_words(free)} free; {instead}")
    if store_bytes(rows, *form) > _UNASKED_BYTES and not yes:
        raise PersonaProbeError(f"{message}; give yes=True (--yes) to write it anyway, or {instead}")


def _check_shard(captured: Activations, header: Mapping[str, Any], rows: int, number: int) -> None:
    differs = [field for field in SAME_SOURCE if captured.source.get(field) != header["source"].get(field)]
    if differs or len(captured) != rows:
        seen = f"{differs[0]} {captured.source.get(differs[0])!r}" if differs else f"{len(captured)} rows, not {rows}"
        raise PersonaProbeError(
            f"shard {number}: capture returned {seen}: the model or its template changed while it was running"
        )


def _write_shard(
    folder: Path,
    number: int,
    captured: Activations,
    known: Sequence[Mapping[str, Any]],
    header: Mapping[str, Any],
    first_dialogue: int,
) -> None:
    shard, index = shard_files(folder, number)
    values = torch.from_numpy(np.ascontiguousarray(captured.values)).to(_TORCH[header["dtype"]])
    with whole_file(shard) as part:
        save_file({"values": values}, str(part))
    table = captured.table
    if header["source"]["reduce"] == "tokens":
        table = table.assign(dialogue=table["dialogue"] + first_dialogue)
    note = {"sha256": file_sha256(shard), "rows": str(len(table)), "source": json.dumps(captured.source, default=str)}
    with whole_file(index) as part:
        write_part(part, table, known, header["columns"], note)


def _write_header(folder: Path, header: Mapping[str, Any]) -> None:
    text = json.dumps(plain(header), indent=2, ensure_ascii=False) + "\n"
    if not (folder / "store.json").exists() or (folder / "store.json").read_text(encoding="utf-8") != text:
        write_text(folder / "store.json", text)


def _clear(folder: Path, todo: Mapping[int, int]) -> None:
    """Remove what an interrupted capture left: unfinished files, and shards without index parts."""
    files = [unfinished_name(folder / "store.json")]
    for number in todo:
        files += [file for final in shard_files(folder, number) for file in (final, unfinished_name(final))]
    for file in files:
        file.unlink(missing_ok=True)
    for name in ("shards", "index"):
        (folder / name).mkdir(exist_ok=True)
