"""Every figure by name: the function that draws it, the tables it needs, and the caption that belongs to it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.required import MissingDataError
from persona_probe.report import captions, latent_captions
from persona_probe.report.by_question import rates_by_question, reported_answers, unit_of
from persona_probe.report.facts import facts_of
from persona_probe.runs.record import RunRecord


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure. Calling it with its tables draws it.

    Args:
        name: what it is called here, and what exported files are called.
        module: the module in ``persona_probe.report.figures`` that draws it.
        tables: the study's tables it is drawn from, in the order of the function's arguments; empty for a figure of
            results that no study leaves behind.
        caption: makes the caption from a run: what is shown, n, interval, null.
        called: the function's name, where it is not ``name``.
        options: keyword arguments that make the function draw this figure.
        by_definition: whether the function takes the ``definition`` of the EM rate; a run is drawn under its own.
        derive: makes what is drawn from a run, by name, where it is not ``tables`` themselves.
        settle: makes keyword arguments from a run.
    """

    name: str
    module: str
    tables: tuple[str, ...] = ()
    caption: Callable[[RunRecord], str] | None = None
    called: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    by_definition: bool = False
    derive: Callable[[RunRecord], dict[str, pd.DataFrame]] | None = None
    settle: Callable[[RunRecord], dict[str, Any]] | None = None

    @property
    def function(self) -> Callable[..., go.Figure]:
        """The function behind it, loaded on first use."""
        module = importlib.import_module(f"persona_probe.figures.{self.module}")
        function: Callable[..., go.Figure] = getattr(module, self.called or self.name)
        return function

    def __call__(self, *tables: pd.DataFrame | None, **options: Any) -> go.Figure:
        """Draw the figure of these tables."""
        return self.function(*tables, **{**self.options, **options})

    def inputs(self, run: RunRecord) -> dict[str, pd.DataFrame]:
        """What the figure is drawn from in a run, by name; what the run did not leave is left out."""
        if self.derive is not None:
            return self.derive(run)
        return {name: run.tables[name] for name in self.tables if name in run.tables}

    def draw(self, run: RunRecord, found: dict[str, pd.DataFrame] | None = None) -> go.Figure:
        """Draw the figure of a run's own tables.

        Args:
            run: the run.
            found: its `inputs`, where they are known already.

        Raises:
            ValueError: if the run left no such table, or the figure finds nothing in it to draw.
        """
        if not self.tables:
            raise MissingDataError(f"{self.name}: no study leaves its table behind; call it with the table")
        found = self.inputs(run) if found is None else found
        names = self.tables if self.derive is None else tuple(found)
        given = [found.get(name) for name in names]
        if len(given) == 1 and given[0] is None:
            given = [pd.DataFrame()]
        own: dict[str, Any] = {"definition": captions.definition_of(run)} if self.by_definition else {}
        own |= {} if self.settle is None else self.settle(run)
        return self(*given, **own)

    @property
    def about(self) -> str:
        """What it shows, in a line."""
        return (inspect.getdoc(self.function) or "").split("\n")[0]


class FigureList(Mapping[str, FigureKind]):
    """The figures by name, as items and as attributes: ``figures["em_rates"]`` is ``figures.em_rates``."""

    def __init__(self, kinds: tuple[FigureKind, ...]) -> None:
        self._kinds = {kind.name: kind for kind in kinds}

    def __getitem__(self, name: str) -> FigureKind:
        return self._kinds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def __getattr__(self, name: str) -> FigureKind:
        try:
            return self.__dict__["_kinds"][name]  # type: ignore[no-any-return]
        except KeyError:
            known = ", ".join(self.__dict__.get("_kinds", ()))
            raise AttributeError(f"there is no figure {name!r}; there are {known}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._kinds]

    def __repr__(self) -> str:
        width = max(map(len, self._kinds), default=0)
        return "\n".join(f"{name:<{width}}  {kind.about}" for name, kind in self._kinds.items())


_OF_RESULTS = (
    "dose_response",
    "calibration",
    "divergence",
    "baked",
    "amplification_course",
    "cosine_matrix",
    "cross_ablation",
    "direction_card",
    "subspace",
    "tokens",
    "transfer",
    "token_heatmap",
    "latent_agreement",
    "latent_attribution",
    "latent_firing",
    "latent_frequencies",
    "latent_leads",
    "reconstruction",
    "answer_scores",
    "compared_rows",
    "compared_curves",
)
"""Figures of results that no study leaves behind, each in a module of its name."""
figures = FigureList(
    (
        FigureKind(
            "summary",
            "summary",
            ("em_rates", "amplification", "steering", "realignment"),
            captions.summary,
            by_definition=True,
            settle=lambda run: {"asked": facts_of(run).asked},
        ),
        FigureKind(
            "em_rates",
            "em_rates",
            ("em_rates",),
            captions.em_rates,
            by_definition=True,
            settle=lambda run: {"asked": facts_of(run).asked},
        ),
        FigureKind(
            "em_by_question",
            "em_by_question",
            ("answers",),
            captions.em_by_question,
            by_definition=True,
            derive=lambda run: {"em_by_question": rates_by_question(run)},
            settle=lambda run: {"unit": "topic" if unit_of(run) == "group" else "question"},
        ),
        FigureKind(
            "answers_scatter",
            "answers_scatter",
            ("answers",),
            captions.answers_scatter,
            by_definition=True,
            derive=lambda run: {"answers": reported_answers(run)},
        ),
        FigureKind("persona_shares", "persona_shares", ("persona_shares",), captions.persona_shares),
        FigureKind("cosines", "cosines", ("direction_cosines",), captions.cosines),
        FigureKind("amplification", "amplification", ("amplification",), captions.amplification),
        FigureKind("projections", "projections", ("projections",), captions.projections),
        FigureKind("persona_space", "persona_space", ("persona_space",), captions.persona_space),
        FigureKind("finders", "finders", ("finders",), captions.finders),
        FigureKind(
            "finder_cosines",
            "cosine_matrix",
            ("finder_cosines",),
            captions.finder_cosines,
            called="cosine_matrix",
            settle=lambda run: {"layer": captions.chosen_layer(run)},
        ),
        FigureKind("probe", "probe", ("probe",), captions.probe),
        FigureKind("probe_same_words", "probe", ("probe_same_words",), captions.same_words, called="probe"),
        FigureKind("steering", "steering", ("steering",), captions.steering),
        FigureKind("realignment", "realignment", ("realignment",), captions.realignment),
        FigureKind("latents", "latents", ("latents",), latent_captions.latents, called="latent_bars"),
        FigureKind(
            "latents_control", "latents", ("latents",), latent_captions.latents_control, called="latent_scatter"
        ),
        FigureKind("latent_effects", "latents", ("latent_effects",), latent_captions.latent_effects),
        FigureKind(
            "latent_course", "trajectory", ("latent_course",), latent_captions.latent_course, called="trajectory"
        ),
        FigureKind(
            "latent_realignment",
            "trajectory",
            ("latent_realignment",),
            latent_captions.latent_realignment,
            called="trajectory",
            options={"axis": "benign examples"},
        ),
        *(FigureKind(name, name) for name in _OF_RESULTS),
        FigureKind("at_budget", "steered_rates"),
        FigureKind("latent_sets", "steered_rates"),
    )
)
"""Every figure that the package draws."""
