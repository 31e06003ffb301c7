"""What a figure asks of a table before it draws anything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from persona_probe.errors import PersonaProbeError


class MissingDataError(PersonaProbeError):
    """A figure cannot be drawn because rows, columns or numbers that it needs are not there."""


def require(table: pd.DataFrame | None, columns: Sequence[str], *, what: str) -> pd.DataFrame:
    """Return ``table``, once it is known to hold rows and every column; columns without any value as NaN.

    Raises:
        MissingDataError: naming the columns that are missing, or that an empty table should have held.
    """
    if table is None or (table.empty and not len(table.columns)):
        raise MissingDataError(f"{what}: there is no table; it needs the columns {_listed(columns)}")
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise MissingDataError(f"{what}: the table has no column {_listed(missing)}")
    if table.empty:
        raise MissingDataError(f"{what}: the table has no rows to read the columns {_listed(columns)} from")
    # Parquet gives a column without any value back as objects; to a figure it is numbers that are missing.
    blank = {column: table[column].astype(float) for column in columns if table[column].isna().all()}
    return table.assign(**blank)


def measured(table: pd.DataFrame, column: str, *, what: str) -> pd.DataFrame:
    """Return the rows of ``table`` whose ``column`` is a finite number.

    Raises:
        MissingDataError: if no row is, naming the column.
    """
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    rows: pd.DataFrame = table[np.isfinite(numbers)]
    if rows.empty:
        raise MissingDataError(f"{what}: the column {column!r} holds no number")
    return rows


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(repr(column) for column in columns)
