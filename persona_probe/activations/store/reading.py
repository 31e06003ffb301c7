"""Reading a store: activations on disk, which may be larger than memory, without torch.

A store is a folder::

    store.json                    what was captured: layers, span, reduction, model and template hash, the captures
    shards/00000.safetensors      one tensor ``values`` (row, layer, d_model), float32 or bfloat16
    index/00000.parquet           one line per row of that shard; its schema metadata hold the shard's SHA-256

A shard counts as written once its index part exists. `persona_probe.activations.store.writing` writes stores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.activations.activations import Activations, joined_source
from persona_probe.activations.store.index import read_note, read_parts
from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.models.stream.layers import Layers, several_layers
from persona_probe.statistics.inputs import on_host

FORMAT = "persona-probe activation store 1"
BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2}
_ON_DISK: dict[str, tuple[str, np.dtype[Any]]] = {
    "float32": ("F32", np.dtype("<f4")),
    "bfloat16": ("BF16", np.dtype("<u2")),
}
_REMEDY = "delete {shard} and {index}, then run the same capture again: it writes only what is missing"


def store_bytes(n_rows: int, n_layers: int, d_model: int, dtype: str = "float32") -> int:
    """Bytes of the values in a store; ``n_rows`` counts dialogues, or tokens with ``reduce="tokens"``."""
    return n_rows * n_layers * d_model * BYTES_PER_VALUE[dtype]


def in_words(size: int) -> str:
    """``size`` in bytes as text with a unit, in powers of 1000: ``1.5 TB``."""
    scaled, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if scaled < 1000:
            break
        scaled, unit = scaled / 1000, larger
    return f"{size} bytes" if unit == "bytes" else f"{scaled:.1f} {unit}"


def shard_files(folder: Path, number: int) -> tuple[Path, Path]:
    """The files of shard ``number`` and of its index part."""
    return folder / "shards" / f"{number:05d}.safetensors", folder / "index" / f"{number:05d}.parquet"


def is_there(folder: Path, number: int) -> bool:
    """Whether shard ``number`` is finished."""
    return all(file.is_file() for file in shard_files(folder, number))


def read_header(folder: Path) -> dict[str, Any]:
    """The content of ``store.json``.

    Raises:
        PersonaProbeError: if the file is missing, is not JSON, or has another format.
    """
    file = folder / "store.json"
    if not file.is_file():
        raise PersonaProbeError(
            f"{folder}: is not an activation store: it has no store.json; capture_to_store writes one"
        )
    try:
        header: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        written = header.get("format")
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise PersonaProbeError(f"{file}: cannot be read ({error}); the store must be captured again") from error
    if written != FORMAT:
        raise PersonaProbeError(
            f"{file}: the format is {written!r}, this version of persona-probe reads {FORMAT!r}; "
            "open it with the version that wrote it, or capture again"
        )
    return header


@dataclass(frozen=True)
class _Shard:
    """A finished shard: its files, its number of rows, its SHA-256 and the source of its activations."""

    file: Path
    index: Path
    rows: int
    sha256: str
    source: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, number: int) -> _Shard:
        """Shard ``number``, as its index part describes it."""
        file, index = shard_files(folder, number)
        return cls(file, index, *read_note(index, _REMEDY.format(shard=file, index=index)))

    @property
    def remedy(self) -> str:
        """What to do if the shard is damaged."""
        return _REMEDY.format(shard=self.file, index=self.index)

    def mapped(self, dtype: str, n_layers: int, d_model: int) -> np.memmap[Any, np.dtype[Any]]:
        """The values mapped from disk, ``(row, layer, d_model)``, without reading them (bfloat16 as uint16)."""
        code, on_disk = _ON_DISK[dtype]
        expected = {"dtype": code, "shape": [self.rows, n_layers, d_model]}
        size = store_bytes(self.rows, n_layers, d_model, dtype)
        try:
            with self.file.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 0 < length <= self.file.stat().st_size - 8:
                    raise ValueError(f"its header claims {length} bytes of a file of {self.file.stat().st_size}")
                entry = json.loads(file.read(length))["values"]
            stored = {"dtype": entry["dtype"], "shape": entry["shape"]}
            start, stop = entry["data_offsets"]
            if stored != expected or (start, stop) != (0, size):
                raise ValueError(f"it holds {stored}, expected {expected}")
            if self.file.stat().st_size != 8 + length + size:
                raise ValueError(f"it has {self.file.stat().st_size} bytes, expected {8 + length + size}")
            shape = (self.rows, n_layers, d_model)
            return np.memmap(self.file, dtype=on_disk, mode="r", offset=8 + length, shape=shape)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PersonaProbeError(f"{self.file}: the shard is damaged: {error}; {self.remedy}") from error


class ActivationStore:
    """Activations on disk, of which only the rows and layers that are asked for are read.

    Attributes:
        path: the store's folder.
        layers: the layer numbers along axis 1.
        d_model: width of the residual stream.
        dtype: ``float32`` or ``bfloat16``, as stored; values are always returned in float32.
        source: where the activations come from, as `Activations.source`; ``sinks_left_out`` is summed over the store,
            and anything else that differs between shards is taken from the first one.
        missing: the numbers of the shards that are planned but not written.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.layers: tuple[int, ...] = tuple(header["layers"])
        self.d_model: int = header["d_model"]
        self.dtype: str = header["dtype"]
        planned = range(sum(entry["shards"] for entry in header["captures"]))
        there = [number for number in planned if is_there(path, number)]
        self.missing: tuple[int, ...] = tuple(sorted(set(planned) - set(there)))
        self._shards = [_Shard.of(path, number) for number in there]
        self._ends = np.cumsum([shard.rows for shard in self._shards], dtype=np.int64)
        sources = [shard.source for shard in self._shards]
        self.source: dict[str, Any] = {**(joined_source(sources) if sources else {}), **header["source"]}

    @classmethod
    def open(cls, path: str | Path, *, unfinished: bool = False) -> ActivationStore:
        """The store in the folder ``path``; only ``store.json`` and the index are read.

        Args:
            path: the store's folder.
            unfinished: open it even if shards are missing, to read those that are there.

        Raises:
            PersonaProbeError: if it is not a store, has another format, or is unfinished.
        """
        check_types(path=(path, PATH))
        store = cls(Path(path), read_header(Path(path)))
        if store.missing and not unfinished:
            total = len(store.missing) + len(store._shards)
            raise PersonaProbeError(
                f"{path}: the capture is unfinished: {len(store.missing)} of {total} shards are missing, the first is "
                f"{shard_files(store.path, store.missing[0])[0].name}; run the same capture again to finish it, or "
                "open it with unfinished=True to read what is there"
            )
        return store

    @property
    def complete(self) -> bool:
        """Whether every planned shard is written."""
        return not self.missing

    def __len__(self) -> int:
        """Number of rows that are written."""
        return int(self._ends[-1]) if self._shards else 0

    def __repr__(self) -> str:
        """Folder, shape, dtype and state."""
        state = "" if self.complete else f", unfinished: {len(self.missing)} shards missing"
        shape = f"{len(self)} rows x {len(self.layers)} layers x {self.d_model}"
        return f"ActivationStore({str(self.path)!r}, {shape}, {self.dtype}, {len(self._shards)} shards{state})"

    @cached_property
    def table(self) -> pd.DataFrame:
        """The table of all rows, as `Activations.table`; ``dialogue`` counts through the whole store."""
        return read_parts([shard.index for shard in self._shards])

    def at(self, layer: int) -> Float[np.ndarray, "row d_model"]:
        """The activations of one layer, float32."""
        return self._values(np.arange(len(self)), self._columns([layer]))[:, 0]

    def read(self, rows: Any = None, layers: Layers = "all") -> Activations:
        """The activations of some rows and layers, in the order asked for.

        Args:
            rows: a boolean mask (one truth value per row), a slice, or row numbers; default all.
            layers: ``"all"``, one or several.

        Raises:
            PersonaProbeError: for a row or layer that does not exist, or a damaged shard.
        """
        numbers = self._rows(rows)
        columns = self._columns(layers)
        table = self.table.iloc[numbers].reset_index(drop=True)
        wanted = tuple(self.layers[column] for column in columns)
        return Activations(self._values(numbers, columns), table, wanted, self.source)

    def shards(self) -> Iterator[Activations]:
        """The activations of one shard after the other, so that only one is in memory."""
        for shard in self._shards:
            values = _float32(shard.mapped(self.dtype, len(self.layers), self.d_model))
            yield Activations(values, read_parts([shard.index]), self.layers, {**self.source, **shard.source})

    def verify(self) -> None:
        """Raise if a shard differs from the SHA-256 that its index part recorded.

        Raises:
            PersonaProbeError: naming the first shard that differs, and what to do.
        """
        for shard in self._shards:
            if (digest := file_sha256(shard.file)) != shard.sha256:
                raise PersonaProbeError(
                    f"{shard.file}: the shard has changed since it was written: its SHA-256 is {digest[:16]}..., "
                    f"recorded was {shard.sha256[:16]}...; {shard.remedy}"
                )

    def _rows(self, rows: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
        everything = np.arange(len(self))
        if rows is None:
            return everything
        if isinstance(rows, slice):
            return everything[rows]
        picks = np.asarray(on_host(rows))
        if picks.ndim > 1:
            raise PersonaProbeError(f"{self.path}: rows has shape {picks.shape}; give a flat list")
        if picks.dtype == bool and picks.shape != (len(self),):
            raise PersonaProbeError(
                f"{self.path}: rows holds {picks.shape} truth values, the store has {len(self)} rows"
            )
        if picks.size == 0:
            return everything[:0]
        try:
            return np.atleast_1d(everything[picks])
        except IndexError as error:
            raise PersonaProbeError(
                f"{self.path}: rows cannot be read ({error}); give a mask, a slice, or row numbers below {len(self)}"
            ) from error

    def _columns(self, layers: Layers) -> list[int]:
        if isinstance(layers, str) and layers == "all":
            return list(range(len(self.layers)))
        wanted = several_layers(layers)
        for layer in wanted:
            if layer not in self.layers:
                captured = ", ".join(map(str, self.layers))
                raise PersonaProbeError(f"{self.path}: layer {layer!r} was not captured; captured: {captured}")
        return [self.layers.index(layer) for layer in wanted]

    def _values(
        self, rows: np.ndarray[Any, np.dtype[np.int64]], columns: list[int]
    ) -> Float[np.ndarray, "row layer d_model"]:
        values = np.empty((len(rows), len(columns), self.d_model), dtype=np.float32)
        owner = np.searchsorted(self._ends, rows, side="right")
        by_shard = np.argsort(owner, kind="stable")
        edges = np.searchsorted(owner[by_shard], np.arange(len(self._shards) + 1))
        for number, shard in enumerate(self._shards):
            places = by_shard[edges[number] : edges[number + 1]]
            if len(places):
                mapped = shard.mapped(self.dtype, len(self.layers), self.d_model)
                inside = rows[places] - (self._ends[number] - shard.rows)
                values[places] = _float32(mapped[np.ix_(inside, columns)])
        return values


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _float32(stored: np.ndarray[Any, Any]) -> Float[np.ndarray, ...]:
    """Values as float32 in memory; bfloat16 is the upper half of a float32."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.array(stored, dtype=np.float32)
