"""Rows of Parquet and Arrow files, and of the folders that ``save_to_disk`` of Hugging Face's data sets writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from persona_probe.errors import PersonaProbeError

_PANDAS_INDEX = "__index_level_"
"""How pandas names row numbers in a Parquet file: they are not a column of the table."""


def file_records(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a ``.parquet`` or ``.arrow`` file, with lists as lists.

    Fields of an object that are null are left out: Arrow gives every object of a column all fields that any has.

    Raises:
        PersonaProbeError: if the file is broken, or has two columns of one name.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file).read() if file.suffix.lower() == ".parquet" else _arrow_table(file)
        names = table.column_names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise PersonaProbeError(f"{file}: has the column {twice!r} twice; rename one")
        columns = [name for name in names if not name.startswith(_PANDAS_INDEX)]
        for batch in table.select(columns).to_batches(max_chunksize=1000):
            for record in batch.to_pylist():
                yield {name: _without_nulls(value) for name, value in record.items()}
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise PersonaProbeError(f"{file}: cannot be read as {file.suffix[1:]} ({error}); is it complete?") from error


def folder_records(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a data set that ``save_to_disk`` wrote into ``folder``.

    Raises:
        PersonaProbeError: if it is not such a folder, holds several splits, or a file is missing or broken.
    """
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = _json(splits).get("splits") or []
        if len(names) != 1:
            example = f" ({folder / names[0]})" if names else ""
            raise PersonaProbeError(f"{folder}: holds the splits {', '.join(names)}; give the folder of one{example}")
        yield from folder_records(folder / names[0])
        return
    state = folder / "state.json"
    if not state.is_file():
        seen = sorted(entry.name for entry in folder.iterdir())[:8]
        raise PersonaProbeError(
            f"{folder}: is not the folder of a data set that save_to_disk wrote (it has no state.json); give a file in "
            f"it: {', '.join(seen) or 'it is empty'}"
        )
    content = _json(state)
    if content.get("_indices_data_files") or content.get("_indices_files"):
        raise PersonaProbeError(
            f"{folder}: holds a selection of rows in addition to the rows; save it with dataset.flatten_indices() first"
        )
    for entry in content.get("_data_files", []):
        file = folder / entry["filename"]
        if not file.is_file():
            raise PersonaProbeError(f"{file}: no such file, though {state.name} names it; is the folder complete?")
        yield from file_records(file)


def _arrow_table(file: Path) -> Any:
    import pyarrow as pa

    with pa.OSFile(str(file)) as source:
        try:
            return pa.ipc.open_stream(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_file(source).read_all()


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PersonaProbeError(f"{file}: is not JSON ({error})") from error
    return content if isinstance(content, dict) else {}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
