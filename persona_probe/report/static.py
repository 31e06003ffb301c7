"""A figure as a PNG file, for a README or a slide."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from persona_probe.figures.summary import HEIGHT, WIDTH
from persona_probe.report.paper.browser import Job, render
from persona_probe.report.paper.layout import Fitted


def save_png(figure: go.Figure, path: Path, *, width: int = WIDTH, height: int = HEIGHT, scale: float = 2.0) -> Path:
    """Write ``figure`` as it is on screen to ``path`` as a PNG and return the path; for print use `to_paper`.

    Args:
        figure: any figure of the report.
        path: where to write it.
        width: in CSS pixels; the file has ``scale`` times as many.
        height: in CSS pixels.
        scale: device pixels per CSS pixel.

    Raises:
        PersonaProbeError: if kaleido is not installed or finds no Chrome or Chromium; the message says what to install.
    """
    path = Path(path)
    path.write_bytes(render([Job(Fitted(figure, width, height), "png", scale)])[0])
    return path
