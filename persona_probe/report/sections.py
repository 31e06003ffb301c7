"""The sections of the report: each with its sentences, its figure with a caption, and its tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.required import MissingDataError
from persona_probe.report.data_table import DataTable
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_kind import FigureKind, Inputs
from persona_probe.report.latent_cards import LatentBrowser
from persona_probe.report.topics.all_topics import TOPICS
from persona_probe.report.topics.topic import Part
from persona_probe.runs.record import RunRecord


@dataclass(frozen=True)
class Section:
    """One section of the report; if it has no figure, ``missing`` says why."""

    id: str
    title: str
    verdicts: list[str]
    caption: str
    kind: FigureKind
    figure: go.Figure | None = None
    data: dict[str, pd.DataFrame] = field(default_factory=dict)
    missing: str | None = None
    tables: list[DataTable] = field(default_factory=list)
    browser: LatentBrowser | None = None

    @property
    def label(self) -> str:
        """What a screen reader says in place of the drawing."""
        return f"Figure: {self.title}. {self.caption}"


def opening_section(run: RunRecord) -> Section:
    """The section that opens the report, with the main figure."""
    section = _built(run, TOPICS[0].parts[0])
    if section.figure is not None:
        section.figure.update_layout(height=800)
    return section


def build_sections(run: RunRecord) -> list[Section]:
    """All other sections of a run's report, in order; optional ones only if the run has their tables or sentences."""
    parts = [part for topic in TOPICS[1:] for part in topic.parts]
    sections = [(part, _built(run, part)) for part in parts if not part.optional or _applies(run, part)]
    # Where preference was asked for instead of rates, no rate is missing.
    unasked = run.judge is None and facts_of(run).prefers
    return [section for part, section in sections if not (unasked and part.rated and section.figure is None)]


def _applies(run: RunRecord, part: Part) -> bool:
    if part.rated and run.judge is None:
        return False
    # Sentences without a table say why there is none.
    return bool(part.sentences(run.results)) or not all(table.empty for table in part.figure.inputs(run).values())


def _built(run: RunRecord, part: Part) -> Section:
    """The section with its figure, or with what the figure lacks."""
    inputs = part.figure.inputs(run)
    try:
        figure, missing = part.figure.draw(run, inputs), None
    except MissingDataError as error:
        figure, missing = None, _why_missing(run, inputs, error, rated=part.rated)
    # Where the study measured preference, a figure of rates may show that instead.
    unrated = part.rated and run.judge is None and figure is None
    return Section(
        id=part.id,
        title=part.title if isinstance(part.title, str) else part.title(run),
        verdicts=[] if unrated else part.sentences(run.results),
        caption="" if part.figure.caption is None else part.figure.caption(run),
        kind=part.figure,
        figure=figure,
        data={} if figure is None else inputs,
        missing=missing,
        tables=[] if figure is None else [table for table in part.tables(run) if table is not None],
        browser=None if part.browser is None else part.browser(run),
    )


def _why_missing(run: RunRecord, inputs: Inputs, error: MissingDataError, *, rated: bool) -> str:
    if rated and run.judge is None:
        return f"{facts_of(run).unjudged}, so no EM rate is reported here."
    if all(table.empty for table in inputs.values()):
        return "This study did not measure it." + (
            " The notes at the top may say why." if run.results.get("notes") else ""
        )
    return f"Nothing to draw. {str(error)[:1].upper()}{str(error)[1:]}."
