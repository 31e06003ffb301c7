"""Figures at print size, with what a reader needs to know of where they came from beside them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.errors import PersonaProbeError, PersonaProbeWarning
from persona_probe.report.paper.browser import FORMATS, Job, render
from persona_probe.report.paper.layout import Fitted, fit
from persona_probe.report.paper.png import with_resolution
from persona_probe.report.paper.provenance import provenance, write_sidecar
from persona_probe.report.paper.size import (
    PIXELS_PER_INCH,
    SCALE,
    TALLEST_MM,
    height_pixels,
    to_mm,
    to_pixels,
    width_mm,
)
from persona_probe.result import Result
from persona_probe.runs.record import RunRecord, read_run


@dataclass(frozen=True)
class PaperFigure:
    """One file to export: a figure or a result, where it goes, and what is known of it.

    Args:
        figure: a figure, or a result, of which the figure and the table are taken.
        path: where to; the suffix (``.pdf``, ``.svg``, ``.png``) is the format.
        width: ``"column"`` (89 mm), ``"page"`` (183 mm), or millimetres.
        height_mm: by default as high as the figure needs.
        title: keep the figure's title; papers have captions instead.
        dpi: of a PNG.
        caption: for the sidecar.
        tables: what the figure was drawn from, by name; their hashes go into the sidecar.
        run: the run it is of, or its folder; its models' and settings' hashes go into the sidecar.
    """

    figure: go.Figure | Result
    path: str | Path
    width: str | float = "column"
    height_mm: float | None = None
    title: bool = False
    dpi: float = 300.0
    caption: str | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    run: RunRecord | str | Path | None = None


def to_paper(
    figure: go.Figure | Result,
    path: str | Path,
    width: str | float = "column",
    *,
    height_mm: float | None = None,
    title: bool = False,
    dpi: float = 300.0,
    caption: str | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    run: RunRecord | str | Path | None = None,
) -> Path:
    """Write one figure at a journal's size as PDF, SVG or PNG, and a sidecar ``PATH.json`` that says where it is from.

    Letters come out at 7 to 8.4 points. A PDF embeds its fonts; an SVG keeps text as text, in the first face of
    its list that the reader's system has. Panels side by side stand below one another in a column. The light template
    is always used. For several figures `to_paper_all` starts the browser only once.

    Args:
        figure: a figure, or a result with a ``plot`` method, whose table then goes into the sidecar.
        path: where to; the suffix is the format.
        width: ``"column"`` (89 mm), ``"page"`` (183 mm), or millimetres.
        height_mm: by default as high as the figure needs.
        title: keep the figure's title; papers have captions instead.
        dpi: of a PNG.
        caption: for the sidecar.
        tables: what the figure was drawn from, by name; their hashes go into the sidecar.
        run: the run it is of, or its folder.

    Returns:
        The path.

    Raises:
        PersonaProbeError: for an unknown format or size, and where kaleido or a browser is missing.
    """
    asked = PaperFigure(figure, path, width, height_mm, title, dpi, caption, tables or {}, run)
    return to_paper_all([asked])[0]


def to_paper_all(wanted: Sequence[PaperFigure]) -> list[Path]:
    """Write many figures in one browser session, each with its sidecar, and return their paths.

    Nothing is written before every picture has been drawn.

    Raises:
        PersonaProbeError: as `to_paper` does.
    """
    jobs = [_job(one) for one in wanted]
    pictures = render(jobs)
    written = []
    for one, job, picture in zip(wanted, jobs, pictures, strict=True):
        path = Path(one.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(with_resolution(picture, one.dpi) if job.format == "png" else picture)
        write_sidecar(path, _about(one, job.fitted))
        written.append(path)
    return written


def _job(one: PaperFigure) -> Job:
    path = Path(one.path)
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise PersonaProbeError(f"{path}: {path.suffix or 'no suffix'!r} is no format of a figure; end it in {known}")
    if not 50 <= one.dpi <= 2400:
        raise PersonaProbeError(f"{path}: dpi is {one.dpi!r}; give 50 to 2400 (journals ask for 300 to 600)")
    figure = one.figure.plot() if isinstance(one.figure, Result) else one.figure
    if not isinstance(figure, go.Figure):
        raise PersonaProbeError(
            f"{path}: a {type(figure).__name__} cannot be exported; give a plotly figure, or a result with .plot()"
        )
    fitted = fit(figure, to_pixels(width_mm(one.width)), height=height_pixels(one.height_mm), title=one.title)
    if to_mm(fitted.height) > TALLEST_MM:
        warnings.warn(
            f"{path.name} is {to_mm(fitted.height):.0f} mm tall, and a page of text {TALLEST_MM:.0f} mm: draw fewer "
            "rows, or give width='page' or height_mm",
            PersonaProbeWarning,
            stacklevel=2,
        )
    return Job(fitted, form, SCALE * (one.dpi / PIXELS_PER_INCH if form == "png" else 1.0))


def _about(one: PaperFigure, fitted: Fitted) -> dict[str, Any]:
    tables = dict(one.tables)
    name = Path(one.path).stem
    if isinstance(one.figure, Result):
        tables = tables or {type(one.figure).__name__: one.figure.to_frame()}
    run = read_run(Path(one.run)) if isinstance(one.run, str | Path) else one.run
    size = {"width": round(to_mm(fitted.width), 1), "height": round(to_mm(fitted.height), 1)}
    return provenance(figure=name, caption=one.caption, run=run, tables=tables, size_mm=size)
