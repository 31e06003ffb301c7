"""A figure as a PNG file, for a README or a slide."""

from __future__ import annotations

import importlib
from pathlib import Path

import plotly.graph_objects as go

from persona_probe.report.figures.summary import HEIGHT, WIDTH


def save_png(figure: go.Figure, path: Path, *, width: int = WIDTH, height: int = HEIGHT, scale: float = 2.0) -> Path:
    """Write ``figure`` to ``path`` as a PNG and return the path. Nothing is fetched from the network.

    Args:
        figure: any figure of the report.
        path: where to write it.
        width: in CSS pixels; the file has ``scale`` times as many.
        height: in CSS pixels.
        scale: device pixels per CSS pixel.

    Raises:
        RuntimeError: if kaleido is not installed or finds no Chrome or Chromium; the message says what to install.
    """
    try:
        kaleido = importlib.import_module("kaleido")
        errors = importlib.import_module("choreographer.errors")
    except ModuleNotFoundError as error:
        raise RuntimeError("saving a figure as PNG needs kaleido: pip install 'persona-probe[export]'") from error
    path = Path(path)
    try:
        # Without this, kaleido's page asks a CDN for MathJax, which no figure here uses.
        content = kaleido.calc_fig_sync(
            figure,
            opts={"format": "png", "width": width, "height": height, "scale": scale},
            kopts={"mathjax": False},
        )
    except errors.ChromeNotFoundError as error:
        raise RuntimeError(
            "saving a figure as PNG needs Chrome or Chromium (Debian: apt-get install chromium); "
            "kaleido found none, and BROWSER_PATH names none"
        ) from error
    path.write_bytes(content)
    return path
