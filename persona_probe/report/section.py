"""One section of the report: sentences, a figure with a caption, tables."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go

from persona_probe.figures.required import MissingDataError
from persona_probe.report.data_tables import DataTable
from persona_probe.report.facts import facts_of
from persona_probe.report.figure_list import FigureKind
from persona_probe.report.latent_cards import LatentBrowser
from persona_probe.runs.record import RunRecord


@dataclass(frozen=True)
class Section:
    """One part of the report; without a figure, ``missing`` says why there is none."""

    id: str
    title: str
    verdicts: list[str]
    caption: str
    figure: go.Figure | None = None
    kind: FigureKind | None = None
    data: dict[str, pd.DataFrame] = field(default_factory=dict)
    missing: str | None = None
    tables: list[DataTable] = field(default_factory=list)
    browser: LatentBrowser | None = None

    @property
    def label(self) -> str:
        """What a screen reader says in place of the drawing."""
        return f"Figure: {self.title}. {self.caption}"


def make_section(
    run: RunRecord,
    id: str,
    title: str,
    kind: FigureKind,
    sentences: list[str | None],
    tables: list[DataTable | None],
    *,
    judged: bool,
) -> Section:
    """A section with its figure drawn; what the figure misses is said in its place.

    Args:
        run: the run.
        id: of the HTML element.
        title: of the section.
        kind: the figure.
        sentences: what the numbers come to; None is left out.
        tables: the figure's numbers; None is left out.
        judged: whether a missing figure is one of rates, which need a judge.
    """
    found = kind.inputs(run)
    try:
        figure, missing = kind.draw(run, found), None
    except MissingDataError as error:
        figure, missing = None, _why_missing(run, found, error, judged)
    return Section(
        id=id,
        title=title,
        verdicts=[sentence for sentence in sentences if sentence],
        caption="" if kind.caption is None else kind.caption(run),
        figure=figure,
        kind=kind,
        data={} if figure is None else found,
        missing=missing,
        tables=[table for table in tables if table is not None and figure is not None],
    )


def _why_missing(run: RunRecord, found: dict[str, pd.DataFrame], error: MissingDataError, judged: bool) -> str:
    if judged and run.judge is None:
        return f"{facts_of(run).unjudged}, so no EM rate is reported here."
    if all(table.empty for table in found.values()):
        return "This study did not measure it." + (
            " The notes at the top may say why." if run.results.get("notes") else ""
        )
    return f"Nothing to draw. {str(error)[:1].upper()}{str(error)[1:]}."
