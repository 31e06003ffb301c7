"""Figures at print size, each with a file that says where it came from."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from persona_probe.errors import PATH, PersonaProbeError, PersonaProbeWarning, check_types, what_is
from persona_probe.figures.summary import HEIGHT, WIDTH
from persona_probe.report.paper.browser import FORMATS, Job, render
from persona_probe.report.paper.layout import Fitted, fit
from persona_probe.report.paper.provenance import provenance, write_sidecar
from persona_probe.result import Result
from persona_probe.runs.record import RunRecord, read_run

MM_PER_INCH = 25.4
PIXELS_PER_INCH = 96.0
"""CSS pixels, the unit in which browsers lay figures out."""
WIDTHS_MM = {"column": 89.0, "page": 183.0}
"""One and two columns of Nature and of most two-column journals (3.5 and 7.2 inches)."""
SCALE = 0.8
"""Print size over screen size: labels of 12 to 14 pixels become 7.2 to 8.4 points, and lines of 2.4 pixels 1.4."""
TALLEST_MM = 247.0
"""The height of a page of text; a taller figure does not fit on one."""
_HEADER_END = 33
"""The end of the first chunk of a PNG, the header."""


@dataclass(frozen=True)
class PaperFigure:
    """One file to export: a figure or a result, its path, and what is known about it.

    Args:
        figure: a figure, or a result, whose figure and table are used.
        path: the file to write; its suffix (``.pdf``, ``.svg``, ``.png``) is the format.
        width: ``"column"`` (89 mm), ``"page"`` (183 mm), or a number of millimetres.
        height_mm: the height; default as much as the figure needs.
        title: whether to show the figure's title; papers have captions instead.
        dpi: the resolution of a PNG.
        caption: the caption, for the sidecar.
        tables: the tables from which the figure was drawn, by name; their hashes go into the sidecar.
        run: the run of the figure, or its folder; the hashes of its models and settings go into the sidecar.
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
    """Write one figure at a journal's size as PDF, SVG or PNG, with a sidecar ``PATH.json`` on where it came from.

    Letters have 7 to 8.4 points. A PDF embeds its fonts; in an SVG, text stays text, in the first font of its list that
    the reader's system has. In a column, panels that are side by side are put below one another. The light template is
    always used. For several figures `to_paper_all` starts the browser only once.

    Args:
        figure: a figure, or a result with a ``plot`` method, whose table then goes into the sidecar.
        path: the file to write; its suffix is the format.
        width: ``"column"`` (89 mm), ``"page"`` (183 mm), or a number of millimetres.
        height_mm: the height; default as much as the figure needs.
        title: whether to show the figure's title; papers have captions instead.
        dpi: the resolution of a PNG.
        caption: the caption, for the sidecar.
        tables: the tables from which the figure was drawn, by name; their hashes go into the sidecar.
        run: the run of the figure, or its folder.

    Returns:
        The path.

    Raises:
        PersonaProbeError: for an unknown format or size, or if kaleido or a browser is missing.
    """
    asked = PaperFigure(figure, path, width, height_mm, title, dpi, caption, tables or {}, run)
    return to_paper_all([asked])[0]


def to_paper_all(wanted: Sequence[PaperFigure]) -> list[Path]:
    """Write many figures in one browser session, each with its sidecar, and return their paths.

    Nothing is written before every picture has been drawn.

    Raises:
        PersonaProbeError: as in `to_paper`.
    """
    check_types(wanted=(wanted, [PaperFigure]))
    jobs = [_job(one) for one in wanted]
    pictures = render(jobs)
    written = []
    for one, job, picture in zip(wanted, jobs, pictures, strict=True):
        path = Path(one.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_with_resolution(picture, one.dpi) if job.format == "png" else picture)
        write_sidecar(path, _about(one, job.fitted))
        written.append(path)
    return written


def save_png(figure: go.Figure, path: Path, *, width: int = WIDTH, height: int = HEIGHT, scale: float = 2.0) -> Path:
    """Write ``figure`` as on screen to ``path`` as a PNG and return the path; for print use `to_paper`.

    Args:
        figure: any figure of the report.
        path: the file to write.
        width: the width in CSS pixels; the file has ``scale`` times as many.
        height: the height in CSS pixels.
        scale: device pixels per CSS pixel.

    Raises:
        PersonaProbeError: if kaleido is not installed or finds no Chrome or Chromium; the message says what to install.
    """
    path = Path(path)
    path.write_bytes(render([Job(Fitted(figure, width, height), "png", scale)])[0])
    return path


def width_mm(width: str | float) -> float:
    """The width in millimetres of ``"column"``, ``"page"``, or of a number of them.

    Raises:
        PersonaProbeError: if it is not a known name and not a number between 30 and 500.
    """
    if isinstance(width, str):
        if width not in WIDTHS_MM:
            known = ", ".join(f"{name!r} ({size:g} mm)" for name, size in WIDTHS_MM.items())
            raise PersonaProbeError(f"width: {width!r} is not one of {known}; give one, or a number of millimetres")
        return WIDTHS_MM[width]
    return _plausible("width", width)


def _plausible(what: str, size: float) -> float:
    if not 30 <= size <= 500:
        raise PersonaProbeError(f"{what}: {size!r} mm is not a size for a figure; give 30 to 500")
    return float(size)


def height_pixels(height_mm: float | None) -> float | None:
    """A height in millimetres as pixels of the layout; None stays None."""
    return None if height_mm is None else to_pixels(_plausible("height_mm", height_mm))


def to_pixels(millimetres: float) -> float:
    """Millimetres on paper as pixels of the layout."""
    return millimetres / MM_PER_INCH * PIXELS_PER_INCH / SCALE


def to_mm(pixels: float) -> float:
    """Pixels of the layout as millimetres on paper."""
    return pixels * SCALE / PIXELS_PER_INCH * MM_PER_INCH


def _with_resolution(content: bytes, dpi: float) -> bytes:
    """A PNG with a pHYs chunk that gives ``dpi``, so that word processors show it in its size."""
    per_metre = round(dpi / 0.0254)
    chunk = b"pHYs" + struct.pack(">IIB", per_metre, per_metre, 1)
    whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content[:_HEADER_END] + whole + content[_HEADER_END:]


def _job(one: PaperFigure) -> Job:
    check_types(path=(one.path, PATH))
    path = Path(one.path)
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise PersonaProbeError(f"{path}: {path.suffix or 'no suffix'!r} is not a figure format; end it in {known}")
    if not 50 <= one.dpi <= 2400:
        raise PersonaProbeError(f"{path}: dpi is {one.dpi!r}; give 50 to 2400 (journals ask for 300 to 600)")
    figure = one.figure.plot() if isinstance(one.figure, Result) else one.figure
    if not isinstance(figure, go.Figure):
        raise PersonaProbeError(
            f"{path}: {what_is(figure)} cannot be exported; give a plotly figure, or a result with .plot()"
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
