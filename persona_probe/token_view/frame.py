"""The table behind a token view: what it must contain, and how each series is scaled."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from persona_probe.errors import PersonaProbeError

TOKEN_COLUMNS = ("dialogue", "name", "position", "token_id", "token", "part", "special")
VALUE_COLUMNS = ("series", "unit", "layer", "value", "centre", "sd", "random", "sink")
COLUMNS = (*TOKEN_COLUMNS, *VALUE_COLUMNS)
_FULL = 0.95
"""The share of tokens that reach at most full colour: scaled to the largest value, one extreme token would leave the
others without colour."""


@dataclass(frozen=True)
class Reading:
    """One series at one layer.

    Attributes:
        series: its name.
        unit: the unit of the numbers.
        layer: which layer.
        values: one per token; NaN where there is none.
        sinks: which tokens are attention sinks.
        centre: the value that gets no colour.
        sd: one standard deviation, in the same unit; NaN where that is not known.
        random: how far from the centre 97.5 % of tokens are along random directions; NaN where that was not measured.
        scale: the distance from the centre at which colours are full.
    """

    series: str
    unit: str
    layer: int
    values: np.ndarray
    sinks: np.ndarray
    centre: float
    sd: float
    random: float
    scale: float

    @property
    def digits(self) -> int:
        """Decimals with which numbers are shown: three figures at full colour."""
        return int(np.clip(2 - math.floor(math.log10(self.scale)), 0, 8))


def checked(frame: pd.DataFrame) -> pd.DataFrame:
    """A table of tokens, sorted: by series as given, then by layer, dialogue and position.

    Raises:
        PersonaProbeError: if it is empty, a column is missing, or a series does not have each token once.
    """
    if missing := [column for column in COLUMNS if column not in frame.columns]:
        raise PersonaProbeError(
            f"token view: the table has no column {', '.join(map(repr, missing))}; give a table of TokenView.to_frame()"
        )
    if frame.empty:
        raise PersonaProbeError("token view: the table has no rows: there is no token to show")
    table = frame[list(COLUMNS)].copy()
    table["_order"] = pd.factorize(table["series"])[0]
    table = table.sort_values(["_order", "layer", "dialogue", "position"], kind="stable").drop(columns="_order")
    places = table[["dialogue", "position"]].drop_duplicates()
    for (series, layer), rows in table.groupby(["series", "layer"], sort=False):
        if len(rows) != len(places) or rows[["dialogue", "position"]].duplicated().any():
            raise PersonaProbeError(
                f"token view: the series {series!r} has {len(rows)} rows at layer {layer}, but there are {len(places)} "
                "tokens; give one row per token, series and layer"
            )
    return table.reset_index(drop=True)


def of_scores(scores: pd.DataFrame, layer: int, name: str) -> pd.DataFrame:
    """A probe's scores of tokens as the table of a token view.

    Raises:
        PersonaProbeError: if a column is missing.
    """
    needed = ("dialogue", "position", "token_id", "token", "part", "score")
    if missing := [column for column in needed if column not in scores.columns]:
        raise PersonaProbeError(
            f"token view: the scores have no column {', '.join(map(repr, missing))}; give the table of token_scores() "
            "or monitor()"
        )
    whose = [column for column in ("call", "batch", "row", "dialogue") if column in scores.columns]
    numbers = scores.groupby(whose, sort=False, dropna=False).ngroup()
    names = [
        f"call {row['call']}, answer {number + 1}" if "call" in row else f"dialogue {row['dialogue']}"
        for row, number in zip(scores[whose].to_dict("records"), numbers, strict=True)
    ]
    given = scores[["position", "token_id", "part"]].assign(
        dialogue=numbers.to_numpy(),
        name=names,
        token=[_spelt(str(token)) for token in scores["token"]],
        special=False,
        series=name,
        unit="probe score",
        layer=layer,
        value=scores["score"].to_numpy(dtype=float),
        centre=0.0,
        sd=np.nan,
        random=np.nan,
        sink=False,
    )
    return given.reset_index(drop=True)


def _spelt(token: str) -> str:
    """A token of a vocabulary with its spaces and line ends as such."""
    return token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")


def tokens(table: pd.DataFrame) -> pd.DataFrame:
    """One row per token, in the order of a series' rows."""
    first = next(iter(table.groupby(["series", "layer"], sort=False)))[1]
    return first[list(TOKEN_COLUMNS)].reset_index(drop=True)


def readings(table: pd.DataFrame) -> Iterator[Reading]:
    """Each series at each layer."""
    for (series, _), rows in table.groupby(["series", "layer"], sort=False):
        values, sinks = rows["value"].to_numpy(dtype=float), rows["sink"].to_numpy(dtype=bool)
        first = rows.iloc[0]
        numbers = (float(first[name]) if pd.notna(first[name]) else math.nan for name in ("centre", "sd", "random"))
        centre, sd, random = numbers
        scale = _scale(np.abs(values - centre)[~sinks])
        yield Reading(str(series), str(first["unit"]), int(first["layer"]), values, sinks, centre, sd, random, scale)


def _scale(distances: np.ndarray) -> float:
    """How far colours reach: 95 % of the tokens that differ from the centre (latents are silent at most tokens)."""
    off = distances[np.isfinite(distances) & (distances > 0)]
    return float(np.quantile(off, _FULL)) if len(off) else 1.0
