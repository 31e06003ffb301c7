"""What a topic of the report is: sections, each with its figure, sentences and tables; and a paragraph on methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.report.data_table import DataTable
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.latent_cards import LatentBrowser
from persona_probe.report.reading import lookup
from persona_probe.runs.record import RunRecord


def no_tables(_run: RunRecord) -> Sequence[DataTable | None]:
    """For a figure whose numbers stand in the figure itself or in another section's tables."""
    return ()


def no_methods(_run: RunRecord) -> list[str]:
    """For a topic that needs no words on methods."""
    return []


@dataclass(frozen=True)
class Part:
    """One section of the report.

    Attributes:
        id: of the HTML element.
        title: of the section, or what makes it from a run.
        figure: its figure.
        verdicts: where ``results.json`` holds its sentences (``"steer.induce_verdict"``; a text may hold several, one
            per line). They are results' own ``verdict()``, so that page, terminal and notebook say the same.
        label: what the summary in the terminal calls it; without one its sentences are not in the summary.
        tables: makes the figure's numbers as text; a None among them is left out.
        browser: makes the table of latents that can be searched.
        rated: whether its numbers are rates, which need a judge.
        optional: whether it is left out of a run that has no such table; else the section says what is missing.
    """

    id: str
    title: str | Callable[[RunRecord], str]
    figure: FigureKind
    verdicts: tuple[str, ...] = ()
    label: str = ""
    tables: Callable[[RunRecord], Sequence[DataTable | None]] = no_tables
    browser: Callable[[RunRecord], LatentBrowser | None] | None = None
    rated: bool = False
    optional: bool = False

    def sentences(self, results: Mapping[str, Any]) -> list[str]:
        """What the numbers come to; empty where the run says nothing of it."""
        texts = [lookup(results, *place.split(".")) for place in self.verdicts]
        lines = [line for text in texts if isinstance(text, str) for line in text.splitlines()]
        return [_as_sentence(line) for line in lines if line]


@dataclass(frozen=True)
class Topic:
    """One topic of a study.

    Attributes:
        parts: its sections, in order.
        methods: makes its sentences of the methods text; empty where the run did not record what they need.
        more_figures: figures on the same topic of results that no study leaves behind.
    """

    parts: tuple[Part, ...] = ()
    methods: Callable[[RunRecord], list[str]] = no_methods
    more_figures: tuple[FigureKind, ...] = ()


def _as_sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
