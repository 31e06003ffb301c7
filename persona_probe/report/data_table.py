"""The numbers behind each figure as rows of text, for screen readers, printouts and careful readers; and as CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona_probe.figures.text import NOTHING, counted, is_number, is_true, percent, percent_interval, signed

Row = Mapping[str, Any]
Cell = Callable[[Row], str]
ISOTROPIC = "isotropic, 97.5 % (SD)"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""The characters at the start of a cell for which a spreadsheet reads it as a formula, or which it skips."""


@dataclass(frozen=True)
class DataTable:
    """A table of text with a caption; the first ``keys`` cells of each row are its headings."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    keys: int = 1
    folded: bool = True


def build_table(
    table: pd.DataFrame,
    needs: tuple[str, ...],
    caption: str,
    cells: Mapping[str, Cell],
    *,
    keys: int = 1,
    folded: bool = True,
) -> DataTable | None:
    """A table of text with one row per row of ``table``; None if that has no rows or lacks a column.

    Args:
        table: the numbers.
        needs: the columns that are needed.
        caption: the caption of the table.
        cells: for each column title, the function that makes a cell from a row.
        keys: how many cells of a row are its headings.
        folded: whether the page shows the table only on demand.
    """
    if lacks(table, needs):
        return None
    rows = [[cell(row) for cell in cells.values()] for row in records(table)]
    return DataTable(caption, list(cells), rows, keys=keys, folded=folded)


def lacks(table: pd.DataFrame, needs: tuple[str, ...]) -> bool:
    """Whether the table has no row, or not all of the columns."""
    return table.empty or any(name not in table.columns for name in needs)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as mappings from column names."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def text(name: str) -> Cell:
    """A cell of text, or a dash if there is none."""
    return lambda row: NOTHING if pd.isna(row[name]) else str(row[name])


def count(name: str) -> Cell:
    """A cell with a count."""
    return lambda row: counted(row[name])


def share(name: str) -> Cell:
    """A cell with a share, in per cent."""
    return lambda row: percent(row[name]) if is_number(row[name]) else NOTHING


def rate(name: str) -> Cell:
    """A cell with a share and the interval ``low`` to ``high``, in per cent."""
    return lambda row: percent_interval(row[name], row["low"], row["high"]) if is_number(row[name]) else NOTHING


def number(name: str, form: str) -> Cell:
    """A cell with a number in that format."""
    return lambda row: format(row[name], form) if is_number(row[name]) else NOTHING


def signed_number(name: str, low: str | None = None, high: str | None = None) -> Cell:
    """A cell with a signed number and its interval."""
    return lambda row: signed_interval(row, name, low, high)


def bounded_number(name: str, low: str, high: str) -> Cell:
    """A cell with a number and its interval."""
    return lambda row: signed_interval(row, name, low, high).removeprefix("+")


def where_measured(table: pd.DataFrame, **titles: str) -> dict[str, Cell]:
    """The cells for those columns that the table has, by title."""
    return {title: number(column, ".2f") for column, title in titles.items() if column in table}


def layer_and_choice(row: Row) -> str:
    """The layer, and whether it is the chosen one."""
    return f"{row['layer']:.0f}{' (chosen)' if is_true(row['chosen']) else ''}"


def signed_interval(row: Row, name: str, low: str | None = None, high: str | None = None) -> str:
    """A number with its sign, and its interval if both ends are known: ``+2.90 [2.75, 3.08]``."""
    if not is_number(row[name]):
        return NOTHING
    ends = [row[end] for end in (low, high) if end is not None]
    interval = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if len(ends) == 2 and all(map(is_number, ends)) else ""
    return signed(row[name]) + interval


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV that is safe to open: text that a spreadsheet would run starts with an apostrophe.

    Numbers stay as they are; the index is left out.
    """
    safe = table.rename(columns=_safe_cell)
    for position, kind in enumerate(safe.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            safe.isetitem(position, safe.iloc[:, position].map(_safe_cell).to_numpy())
    return safe.to_csv(index=False, lineterminator="\n")


def _safe_cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
