"""The base classes of results: each can be drawn, shown in a notebook and turned into a table."""

from __future__ import annotations

import abc
import html
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    import plotly.graph_objects as go

_ROWS = 12
"""How many rows a notebook shows."""


class Result(abc.ABC):
    """The result of a measurement, with its table, its figure and its headline."""

    @abc.abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """A copy of the table."""

    @abc.abstractmethod
    def plot(self) -> go.Figure:
        """The figure of this result, in the package's own template."""

    @abc.abstractmethod
    def headline(self) -> str:
        """The result in one line of plain text."""

    def shown(self) -> pd.DataFrame:
        """The table that a notebook shows; it shows the first twelve rows of it."""
        return self.to_frame()

    def __str__(self) -> str:
        """The headline, since a table does not fit into a sentence."""
        return self.headline()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """The headline also in IPython and in a notebook's plain text, where a dataclass would show every array."""
        printer.text(f"{type(self).__name__}({'...' if cycle else self.headline()})")

    def _repr_html_(self) -> str:
        """The headline and the first rows; all text in them is escaped."""
        rows = self.shown()
        table = rows.head(_ROWS).to_html(index=False, border=0, float_format=lambda value: f"{value:.3g}")
        more = f"<p>{len(rows) - _ROWS} more rows: see .to_frame()</p>" if len(rows) > _ROWS else ""
        return f"<p>{html.escape(self.headline())}</p>{table}{more}"


class TableResult(Result):
    """A result that is one table."""

    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """A copy of the table."""
        return self.table.copy()
