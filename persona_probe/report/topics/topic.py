"""A topic of the report: sections, each with its figure, sentences and tables; and a paragraph on methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona_probe.report.data_table import DataTable
from persona_probe.report.figure_kind import FigureKind
from persona_probe.report.latent_cards import LatentBrowser
from persona_probe.report.reading import lookup
from persona_probe.runs.record import RunRecord


@dataclass(frozen=True)
class Part:
    """One section of the report.

    Attributes:
        id: the id of the HTML element.
        title: the title of the section, or a function that makes it from a run.
        figure: the figure of the section.
        verdicts: where ``results.json`` holds its sentences (``"steer.induce_verdict"``; a text may have several, one
            per line). They are the ``verdict()`` of the results, so that page, terminal and notebook say the same.
        label: its name in the summary in the terminal; without a name its sentences are not in the summary.
        tables: makes the figure's numbers as text, or nothing if they are in the figure or another section's tables; a
            None among the tables is left out.
        browser: makes the table of latents that can be searched.
        rated: whether its numbers are rates, which need a judge (for steering: or a preference, which needs none).
        optional: whether it is left out if the run has no such table; otherwise the section says what is missing.
    """

    id: str
    title: str | Callable[[RunRecord], str]
    figure: FigureKind
    verdicts: tuple[str, ...] = ()
    label: str = ""
    tables: Callable[[RunRecord], Sequence[DataTable | None]] = lambda _run: ()
    browser: Callable[[RunRecord], LatentBrowser | None] | None = None
    rated: bool = False
    optional: bool = False

    def sentences(self, results: Mapping[str, Any]) -> list[str]:
        """The sentences on the numbers; empty if the run has none."""
        texts = [lookup(results, *place.split(".")) for place in self.verdicts]
        lines = [line for text in texts if isinstance(text, str) for line in text.splitlines()]
        return [_as_sentence(line) for line in lines if line]


@dataclass(frozen=True)
class Topic:
    """One topic of a study.

    Attributes:
        parts: its sections, in order.
        methods: makes its sentences in the methods text; none if the run did not record what they need.
        more_figures: further figures on the topic, of results that no study stores.
    """

    parts: tuple[Part, ...] = ()
    methods: Callable[[RunRecord], list[str]] = lambda _run: []
    more_figures: tuple[FigureKind, ...] = ()


def _as_sentence(text: str) -> str:
    """``text`` with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
