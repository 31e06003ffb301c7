"""The look of every figure: one Plotly template, and one fixed style for each model.

Colours are Okabe & Ito's, which people with the common kinds of colour blindness can distinguish; each model also has
its own marker and dash, so that a greyscale print loses nothing. Importing this module registers ``persona_probe``.
"""

from __future__ import annotations

from dataclasses import dataclass

import plotly.graph_objects as go
import plotly.io as pio

NAME = "persona_probe"
FONT = "Inter, 'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"


@dataclass(frozen=True)
class Style:
    """How one series is drawn: colour, marker symbol and line dash."""

    colour: str
    symbol: str
    dash: str

    def faded(self, opacity: float) -> str:
        """The colour as ``rgba(...)`` at this opacity."""
        red, green, blue = (int(self.colour[start : start + 2], 16) for start in (1, 3, 5))
        return f"rgba({red}, {green}, {blue}, {opacity})"


MODEL_STYLES = {
    "before": Style("#0072B2", "circle", "dot"),
    "after": Style("#D55E00", "diamond", "solid"),
    "control": Style("#56B4E9", "square", "dash"),
    "second control": Style("#E69F00", "cross", "dot"),
    "realigned": Style("#009E73", "triangle-up", "dashdot"),
    "steered": Style("#CC79A7", "star", "solid"),
    "random": Style("#8A8F98", "x", "dot"),
}
SERIES_STYLES = (
    Style("#CC79A7", "diamond", "solid"),
    Style("#0072B2", "circle", "dash"),
    Style("#009E73", "triangle-up", "dashdot"),
    Style("#E69F00", "square", "dot"),
    Style("#56B4E9", "star", "longdash"),
    Style("#D55E00", "cross", "longdashdot"),
)
"""Styles for series that are not models, in order of use."""


def model_style(model: str) -> Style:
    """The fixed style of a model of a study; any other name gets the style of *steered*."""
    return MODEL_STYLES.get(model, MODEL_STYLES["steered"])


def build_template(*, dark: bool = False) -> go.layout.Template:
    """The template; the report uses the dark one where the reader's system asks for it."""
    ink, muted, grid, paper = (
        ("#E6E9EF", "#A9B1BD", "#2E343D", "#15181D") if dark else ("#1F2430", "#5B6472", "#E3E6EB", "#FFFFFF")
    )
    axis = {
        "gridcolor": grid,
        "linecolor": muted,
        "tickcolor": muted,
        "tickfont": {"color": ink, "size": 13},
        "title": {"font": {"size": 14, "color": ink}, "standoff": 10},
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "zeroline": False,
        "automargin": True,
    }
    layout = go.Layout(
        font={"family": FONT, "size": 14, "color": ink},
        title={"font": {"size": 17}, "x": 0.0, "xref": "container", "pad": {"l": 12}, "y": 0.97, "yanchor": "top"},
        paper_bgcolor=paper,
        plot_bgcolor=paper,
        colorway=[style.colour for style in SERIES_STYLES],
        margin={"l": 70, "r": 30, "t": 84, "b": 60},
        height=420,
        legend={
            "orientation": "h",
            "x": 0.0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 13},
            "bgcolor": "rgba(0, 0, 0, 0)",
        },
        hoverlabel={"font": {"family": FONT, "size": 13}, "align": "left", "namelength": -1},
        hovermode="closest",
        xaxis=axis,
        yaxis=axis,
        shapedefaults={"line": {"color": muted, "width": 1.2}},
        annotationdefaults={"font": {"size": 12.5, "color": ink}, "showarrow": False},
    )
    return go.layout.Template(layout=layout)


pio.templates[NAME] = build_template()
