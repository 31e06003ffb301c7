"""Checks of a table before a figure is drawn from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from persona_probe.errors import PersonaProbeError


class MissingDataError(PersonaProbeError):
    """A figure cannot be drawn because rows, columns or numbers that it needs are missing."""


def require(table: pd.DataFrame | None, columns: Sequence[str], *, what: str) -> pd.DataFrame:
    """``table``, checked to have rows and every column; columns without any value become NaN.

    Raises:
        MissingDataError: if columns are missing or the table is empty; the columns are named.
    """
    if table is None or (table.empty and not len(table.columns)):
        raise MissingDataError(f"{what}: there is no table; it needs the columns {_listed(columns)}")
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise MissingDataError(f"{what}: the table has no column {_listed(missing)}")
    if table.empty:
        raise MissingDataError(f"{what}: the table has no rows to read the columns {_listed(columns)} from")
    # Parquet returns a column without any value as objects; for a figure these are missing numbers.
    blank = {column: table[column].astype(float) for column in columns if table[column].isna().all()}
    return table.assign(**blank)


def measured(table: pd.DataFrame, column: str, *, what: str) -> pd.DataFrame:
    """The rows of ``table`` whose ``column`` is a finite number.

    Raises:
        MissingDataError: if there is no such row; the column is named.
    """
    numbers = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
    rows: pd.DataFrame = table[np.isfinite(numbers)]
    if rows.empty:
        raise MissingDataError(f"{what}: the column {column!r} holds no number")
    return rows


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(repr(column) for column in columns)
