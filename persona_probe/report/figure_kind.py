"""A kind of figure: its name, the function that draws it, the tables that it needs, and its caption."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.required import MissingDataError
from persona_probe.runs.record import RunRecord

Inputs = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure. Calling it with its tables draws it.

    Args:
        name: the name of the figure, and of exported files.
        tables: the study's tables from which it is drawn, in the order of the function's arguments; empty for a figure
            of results that no study stores.
        caption: makes the caption from a run: what is shown, n, interval, null.
        drawn_by: the module in ``persona_probe.figures`` that draws it, or ``module:function``; default: ``name``.
        options: keyword arguments with which the function draws this figure.
        settle: makes further keyword arguments from a run.
        derive: makes the tables that are drawn from a run, by name, if they are not ``tables`` themselves.
    """

    name: str
    tables: tuple[str, ...] = ()
    caption: Callable[[RunRecord], str] | None = None
    drawn_by: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    settle: Callable[[RunRecord], dict[str, Any]] | None = None
    derive: Callable[[RunRecord], Inputs] | None = None

    @property
    def module(self) -> str:
        """The module in ``persona_probe.figures`` that draws it."""
        return (self.drawn_by or self.name).partition(":")[0]

    @property
    def function(self) -> Callable[..., go.Figure]:
        """The function that draws it; its module is imported on first use."""
        called = self.drawn_by.partition(":")[2] or self.module
        function: Callable[..., go.Figure] = getattr(
            importlib.import_module(f"persona_probe.figures.{self.module}"), called
        )
        return function

    def __call__(self, *tables: pd.DataFrame | None, **options: Any) -> go.Figure:
        """The figure of these tables."""
        return self.function(*tables, **{**self.options, **options})

    def inputs(self, run: RunRecord) -> Inputs:
        """The tables of a run from which the figure is drawn, by name; those that the run lacks are left out."""
        if self.derive is not None:
            return self.derive(run)
        return {name: run.tables[name] for name in self.tables if name in run.tables}

    def draw(self, run: RunRecord, inputs: Inputs | None = None) -> go.Figure:
        """The figure of a run's tables.

        Args:
            run: the run.
            inputs: what `inputs` returns, if it is known already.

        Raises:
            ValueError: if the run has no such table, or there is nothing in it to draw.
        """
        if not self.tables:
            raise MissingDataError(f"{self.name}: no study stores its table; call it with the table")
        inputs = self.inputs(run) if inputs is None else inputs
        tables = [inputs.get(name) for name in (self.tables if self.derive is None else inputs)]
        if len(tables) == 1 and tables[0] is None:
            tables = [pd.DataFrame()]
        return self(*tables, **({} if self.settle is None else self.settle(run)))

    @property
    def about(self) -> str:
        """What it shows, in one line."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]
