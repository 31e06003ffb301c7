"""A token view as HTML: readable without scripts; with scripts it has a slider over layers and a menu of series.

The markup contains one layer already coloured; the script, where it may run, adds the controls and recolours. Nothing
is loaded from anywhere, and several views on one page do not disturb each other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from persona_probe.figures.axes import LAYER_TITLE
from persona_probe.figures.highlighting import DARKEST, shown_token
from persona_probe.figures.text import visible
from persona_probe.token_view.frame import Reading

UP, DOWN = "213, 94, 0", "0, 114, 178"
"""Okabe and Ito's vermillion and blue; an edge below or above the token says the same without colour."""
PART_WORDS = {"prompt": "prompt", "response": "response", "end": "template"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_BODY = ":root { color-scheme: light dark; } body { margin: 1.5rem; }"


def view(tokens: pd.DataFrame, readings: Sequence[Reading], shown: int, headline: str) -> Markup:
    """The view as a piece of HTML.

    Args:
        tokens: one row per token, from `persona_probe.token_view.frame.tokens`.
        readings: each series at each layer, in order.
        shown: which of them is coloured at first.
        headline: the line above the view.
    """
    data, first = _data(readings, shown), readings[shown]
    written = json.dumps(data, separators=(",", ":"), allow_nan=False)
    # Inside a script element these characters could end it, or begin another; JSON can also write them as numbers.
    written = "".join(f"\\u{ord(char):04x}" if char in "<>&\u2028\u2029" else char for char in written)
    texts = _texts(tokens, first)
    identity = hashlib.sha256((written + texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]
    one = data["series"][data["shown"][0]]["layers"][data["shown"][1]]
    ends = Markup("").join(
        Markup("<span>{}</span>").format(_number(first.centre + side * first.scale, first.digits))
        for side in (-1, 0, 1)
    )
    # Some sanitisers show what they do not allow as plain text, so the dialogue's text comes first.
    return Markup(
        '<div class="pp-tokens" data-pp-tokens="{id}"><div>{headline}</div>'
        '<div class="pp-controls"></div><div class="pp-shown">{shown}</div>{bar}<div class="pp-ends">{ends}</div>'
        '<div class="pp-note pp-unit">{note}</div><div class="pp-readout" role="status" aria-live="polite"></div>'
        '{texts}<style>{css}</style><script type="application/json">{data}</script><script>{js}</script></div>'
    ).format(
        id=identity,
        css=Markup(_asset("token_view.css")),
        headline=visible(headline),
        shown=f"{visible(first.series)}, {one['words']}",
        bar=_bar(first),
        ends=ends,
        note=one["note"],
        texts=texts,
        data=Markup(written),
        js=Markup(_script().replace("__ID__", identity)),
    )


def page(inside: Markup, title: str) -> str:
    """A whole page around a view."""
    return str(
        Markup(
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            'content="width=device-width, initial-scale=1"><meta http-equiv="Content-Security-Policy" '
            'content="{policy}"><title>{title}</title><style>{css}</style></head><body>{inside}</body></html>'
        ).format(policy=_POLICY, title=visible(title), css=Markup(_BODY), inside=inside)
    )


def about(row: Any) -> str:
    """The text of a token, its position, and the part of the dialogue that it is in."""
    token = shown_token(str(row.token)).replace("\n", "").strip() or "space"
    return f"{token!r}, position {row.position}, {PART_WORDS.get(str(row.part), visible(str(row.part)))}"


def hover_text(name: str, value: float, reading: Reading, sink: bool) -> str:
    """The text that appears over a token; the script writes the same for the other layers."""
    if math.isnan(value):
        text = "not read"
    else:
        text = f"{_number(value, reading.digits)} {visible(reading.unit)}"
        if not math.isnan(reading.sd):
            text += f", {_number((value - reading.centre) / reading.sd, 1)} SD from the reference"
    return f"{name}\n{text}{'; an attention sink' * sink}\nlayer {reading.layer}"


def _texts(tokens: pd.DataFrame, reading: Reading) -> Markup:
    """All dialogues, part by part, with coloured tokens."""
    rows = list(zip(tokens.itertuples(index=False), reading.values, reading.sinks, strict=True))
    parts = []
    for _, dialogue in groupby(rows, key=lambda row: row[0].dialogue):
        dialogue_rows = list(dialogue)
        parts.append(Markup('<div class="pp-name">{}</div>').format(visible(str(dialogue_rows[0][0].name))))
        for part, run in groupby(dialogue_rows, key=lambda row: str(row[0].part)):
            spans = Markup("").join(_span(token, float(value), bool(sink), reading) for token, value, sink in run)
            label = PART_WORDS.get(part, visible(part))
            parts.append(
                Markup('<div class="pp-part"><b>{}</b><div class="pp-text" dir="auto">{}</div></div>').format(
                    label, spans
                )
            )
    return Markup("").join(parts)


def _span(token: Any, value: float, sink: bool, reading: Reading) -> Markup:
    name = about(token)
    rounded = value if math.isnan(value) else round(value, reading.digits)
    style = _style(rounded, reading)
    special = Markup(" data-special") if token.special else Markup("")
    return Markup('<span{}{} data-about="{}" title="{}">{}</span>').format(
        special, style, name, hover_text(name, rounded, reading, sink), _text(str(token.token))
    )


def _text(token: str) -> str:
    """A token's text, with something visible even where it is only spaces."""
    return token.replace(" ", "␣") if token and not token.strip(" ") else shown_token(token)


def _style(value: float, reading: Reading) -> Markup:
    if math.isnan(value):
        return Markup("")
    share = (value - reading.centre) / reading.scale
    size, rgb = min(abs(share), 1.0), UP if share > 0 else DOWN
    edge = f"inset 0 {'-' * (share > 0)}2px 0 rgba({rgb}, {size:.2f})"
    return Markup(' style="background-color: rgba({}, {:.2f}); box-shadow: {}"').format(
        Markup(rgb), DARKEST * size, Markup(edge)
    )


def _bar(reading: Reading) -> Markup:
    """The bar of colours, with marks that show how far random directions reach."""
    reach = 2.0 if math.isnan(reading.random) else reading.random / reading.scale
    marks = Markup("").join(
        Markup('<i style="left: {:.1f}%"{}></i>').format(50 + 50 * place, Markup(" hidden") if reach > 1 else "")
        for place in (-reach, reach)
    )
    return Markup(
        '<div class="pp-bar" style="background: linear-gradient(to right, rgba({down}, {full}), rgba({down}, 0) 50%, '
        'rgba({up}, 0) 50%, rgba({up}, {full}))">{marks}</div>'
    ).format(down=Markup(DOWN), up=Markup(UP), full=DARKEST, marks=marks)


def _data(readings: Sequence[Reading], shown: int) -> dict[str, Any]:
    """The data for the script: each number once, rounded."""
    series: list[dict[str, Any]] = []
    place = (0, 0)
    for number, one in enumerate(readings):
        if not series or series[-1]["key"] != one.series:
            series.append({"key": one.series, "name": visible(one.series), "unit": visible(one.unit), "layers": []})
        if number == shown:
            place = (len(series) - 1, len(series[-1]["layers"]))
        series[-1]["layers"].append(_layer(one))
    return {"shown": place, "series": [{key: part for key, part in one.items() if key != "key"} for one in series]}


def _layer(one: Reading) -> dict[str, Any]:
    digits = one.digits
    values = [None if math.isnan(value) else _short(value, digits) for value in one.values]
    known = {"centre": one.centre, "sd": one.sd, "random": one.random, "scale": one.scale}
    numbers = {name: None if math.isnan(value) else float(f"{value:.6g}") for name, value in known.items()}
    words = f"layer {one.layer} {LAYER_TITLE.removeprefix('layer ')}"
    sinks = [place for place, sink in enumerate(one.sinks) if sink]
    return {"layer": one.layer, "words": words, "digits": digits, **numbers, "note": _note(one)} | {
        "sinks": sinks,
        "values": values,
    }


def _note(one: Reading) -> str:
    """The note below the colour bar."""
    read = int((~pd.isna(one.values)).sum())
    text = f"{visible(one.unit)}; full colour: the furthest 5 % of the tokens that are off (n = {read} tokens)"
    if not math.isnan(one.random):
        text += f"; dotted: 97.5 % of tokens along random directions ({_number(one.random, one.digits).lstrip('+')})"
    return text


def _short(value: float, digits: int) -> float | int:
    rounded = round(float(value), digits)
    return int(rounded) if rounded == int(rounded) else rounded


def _number(value: float, digits: int) -> str:
    """A number with its sign, as the script writes it; a rounded zero is written as +0."""
    rounded = round(value, digits)
    return f"{rounded if rounded else 0.0:+.{digits}f}"


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


@cache
def _script() -> str:
    filled = {"__UP__": UP, "__DOWN__": DOWN, "__DARKEST__": str(DARKEST)}
    text = _asset("token_view.js")
    for name, value in filled.items():
        text = text.replace(name, value)
    return text
