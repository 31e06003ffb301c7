"""Self-contained pages: figures and data are JSON, scripts are known by their hashes, and all text is escaped."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from persona_probe.figures.template import build_template
from persona_probe.figures.text import visible

HERE = Path(__file__).parent
# Buttons are named one by one: plotly.js has one that sends the figure to a server, and may get others.
FIGURE_CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    "toImageButtonOptions": {"format": "svg"},
    "plotlyServerURL": "",
}
SCRIPTS = ("browser.js", "page.js")


def render_page(
    template: str, *, figures: Mapping[str, go.Figure], data: Mapping[str, str] | None = None, **content: Any
) -> str:
    """A page as HTML.

    Args:
        template: the name of the Jinja template.
        figures: the figures, by the id of their section.
        data: CSV files that the page offers for download, by name without ``.csv``.
        content: the values that the template shows.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    scripts = [get_plotlyjs().replace("\r\n", "\n"), *((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)]
    return environment.get_template(template).render(
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        figures=embed_json(_figures(figures, data or {})),
        downloads=list(data or ()),
        scripts=[Markup(script) for script in scripts],
        script_hashes=[_csp_hash(script) for script in scripts],
        **content,
    )


def embed_json(value: Any) -> Markup:
    """``value`` as JSON that is safe inside a ``<script>`` element, whatever strings it contains."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    # In JSON these characters occur only inside strings, where an escape means the same.
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _figures(figures: Mapping[str, go.Figure], data: Mapping[str, str]) -> dict[str, Any]:
    plain = {name: _without_template(figure) for name, figure in figures.items()}
    templates = {name: build_template(dark=name == "dark").to_plotly_json() for name in ("light", "dark")}
    return {"figures": plain, "templates": templates, "config": FIGURE_CONFIG, "data": dict(data)}


def _without_template(figure: go.Figure) -> dict[str, Any]:
    """A figure as JSON without its template, because the page has both templates once."""
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    return {"data": content["data"], "layout": content["layout"]}


def _csp_hash(script: str) -> str:
    """The hash by which the page's content security policy knows one of its scripts."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _shown(value: object) -> object:
    """A value as the template prints it: strings without invisible characters that would disturb other text."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _unbroken(sentence: str) -> Markup:
    """A sentence in which a number and its unit stay on one line, and arrows are one character."""
    arrows = visible(sentence).replace("->", "→")
    return Markup(re.sub(r"(?<=\d) (?=%|SD)", "&nbsp;", str(escape(arrows))))
