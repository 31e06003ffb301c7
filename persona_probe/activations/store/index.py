"""A store's index: one Parquet part per shard, all with the same columns, so that the folder reads as one table.

``id``, ``question``, ``group``, ``seed`` and each label have a typed column, whose type the first capture decides. A
value that does not fit its column, or a label that was added later, is stored as JSON in the column ``other_labels``;
`read_parts` puts it back, so that nothing is lost and the parts do not contradict each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from persona_probe.activations.activations import IDENTITY_COLUMNS
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError

OTHER = "other_labels"
ROW_COLUMNS = ("dialogue", "n_tokens", "n_sinks", "position", "token_id", "token")
"""Columns of `capture`'s table: stored as they are, even if a label has the same name."""
_TYPES = ("bool", "int64", "double", "string")


def known_of(dialogue: Dialogue) -> dict[str, Any]:
    """Labels and identity of ``dialogue`` as plain JSON values.

    Raises:
        PersonaProbeError: if a label cannot be stored, naming it.
    """
    known = {
        name: _plain(value, f"dialogue {dialogue.name}: the label {name!r}") for name, value in dialogue.labels.items()
    }
    known |= {name: _plain(getattr(dialogue, name), f"dialogue {dialogue.name}: {name}") for name in IDENTITY_COLUMNS}
    return {name: value for name, value in known.items() if name not in ROW_COLUMNS}


def column_types(known: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The type of each column, which all of its values fit; labels of mixed type are left out."""
    types: dict[str, str] = {}
    for name in dict.fromkeys(name for row in known for name in row):
        values = [row[name] for row in known if row.get(name) is not None]
        fitting = [kind for kind in _TYPES if all(_fits(value, kind) for value in values)]
        if fitting and name not in (*IDENTITY_COLUMNS, OTHER):
            types[name] = fitting[0] if values else "string"
    return types | dict(zip(IDENTITY_COLUMNS, ("string", "string", "string", "int64"), strict=True))


def write_part(
    file: Path,
    table: pd.DataFrame,
    known: Sequence[Mapping[str, Any]],
    types: Mapping[str, str],
    note: Mapping[str, str],
) -> None:
    """Write one part.

    Args:
        file: the file to write.
        table: the table of `capture`.
        known: for each row, `known_of` of its dialogue.
        types: `column_types` of the store.
        note: what is written into the schema metadata.
    """
    columns = {
        name: pa.array([_fitting(row.get(name), kind) for row in known], pa.type_for_alias(kind))
        for name, kind in types.items()
    }
    named = set(types).union(*known)
    columns |= {name: pa.array(table[name], from_pandas=True) for name in table.columns if name not in named}
    misfits = [
        {name: value for name, value in row.items() if name not in types or not _fits(value, types[name])}
        for row in known
    ]
    columns[OTHER] = pa.array([json.dumps(misfit) if misfit else None for misfit in misfits], pa.string())
    pq.write_table(pa.table(columns).replace_schema_metadata(dict(note)), file)


def read_note(file: Path, remedy: str) -> tuple[int, str, dict[str, Any]]:
    """Number of rows, SHA-256 and source of the shard that the part ``file`` belongs to.

    Raises:
        PersonaProbeError: if the part is damaged; ``remedy`` says what to do.
    """
    try:
        metadata = pq.read_metadata(file)
        note = metadata.metadata
        if int(note[b"rows"]) != metadata.num_rows:
            raise ValueError(f"it has {metadata.num_rows} rows, but its metadata says {int(note[b'rows'])}")
        return metadata.num_rows, note[b"sha256"].decode(), json.loads(note[b"source"])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise PersonaProbeError(f"{file}: the index part is damaged: {error}; {remedy}") from error


def read_parts(files: Sequence[Path]) -> pd.DataFrame:
    """The table of all ``files``, one after another, with every value in its own column."""
    if not files:
        return pd.DataFrame()
    parts = []
    for file in files:
        try:
            # Not pq.read_table, which would read a column from the name of a folder a=b above the store.
            with pq.ParquetFile(file) as opened:
                parts.append(opened.read())
        except (pa.ArrowException, OSError) as error:
            raise PersonaProbeError(
                f"{file}: the index part is damaged: {error}; delete it and run the same capture again"
            ) from error
    table: pd.DataFrame = pa.concat_tables(parts, promote_options="permissive").to_pandas()
    for name in table.columns[table.isna().all()]:
        table[name] = pd.Series([None] * len(table), dtype=object)
    return _with_misfits(table.drop(columns=OTHER), table[OTHER])


def _with_misfits(table: pd.DataFrame, other: pd.Series[Any]) -> pd.DataFrame:
    """``table`` with the JSON values of ``other`` in their columns; each distinct text is parsed once."""
    codes, texts = pd.factorize(other)
    misfits: list[dict[str, Any]] = [json.loads(text) for text in texts]
    for name in dict.fromkeys(name for misfit in misfits for name in misfit):
        has = np.array([name in misfit for misfit in misfits])
        rows = np.flatnonzero((codes >= 0) & has[codes])
        column = np.full(len(table), None, dtype=object)
        if name in table:
            present = table[name].notna().to_numpy()
            column[present] = table[name].to_numpy(dtype=object)[present]
        for row in rows:
            column[row] = misfits[codes[row]][name]
        table[name] = pd.Series(column, dtype=object)
    return table


def _fits(value: Any, kind: str) -> bool:
    """Whether a column of type ``kind`` can hold ``value`` without changing it."""
    if value is None or kind == "bool":
        return value is None or isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, float):
        return kind == "double"
    return abs(value) < (2**63 if kind == "int64" else 2**53)


def _fitting(value: Any, kind: str) -> Any:
    return value if _fits(value, kind) else None


def _plain(value: Any, what: str) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item, what) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, what) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise PersonaProbeError(
        f"{what} is {type(value).__name__} {value!r}, which a store cannot hold; give text, a number, a truth value, "
        "or lists and mappings of these"
    )
