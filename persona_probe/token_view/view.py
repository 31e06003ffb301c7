"""Dialogues with a number at every token, layer by layer: what `persona_probe.view_tokens` gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from persona_probe.errors import PersonaProbeError
from persona_probe.figures.token_heatmap import token_heatmap
from persona_probe.files import write_text
from persona_probe.result import Result
from persona_probe.token_view import frame, page
from persona_probe.token_view.frame import Reading


@dataclass(frozen=True, eq=False)
class TokenView(Result):
    """Dialogues coloured token by token, with a slider over layers and a menu of series.

    In a notebook it shows itself; where scripts may not run, one layer is still coloured.

    Attributes:
        table: one row a token, series and layer: ``dialogue`` (row number), ``name`` of it, ``position`` (from 0),
            ``token_id``, ``token`` (its text), ``part`` (``prompt``, with the assistant header; ``response``; ``end``,
            what the template writes after it), ``special`` (whether it is a token of the template's),
            ``series``, ``unit``, ``layer``, ``value`` (NaN where nothing was read), ``centre`` (the value that is not
            coloured), ``sd`` (a standard deviation over the reference's dialogues; NaN without one), ``random`` (how
            far from the centre 97.5 % of tokens lie along random directions; NaN where there is no such null) and
            ``sink`` (whether the token is an attention sink at that layer).
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        """Check and sort the table."""
        object.__setattr__(self, "table", frame.checked(self.table))

    @classmethod
    def from_frame(cls, table: pd.DataFrame) -> TokenView:
        """The view of a table that `to_frame` made; needs no torch.

        Raises:
            PersonaProbeError: if a column is missing, or a series does not hold each token once.
        """
        return cls(table)

    @classmethod
    def from_scores(cls, scores: pd.DataFrame, layer: int, *, name: str = "probe") -> TokenView:
        """The view of a probe's scores, of `persona_probe.token_scores` or of `persona_probe.monitor`.

        Args:
            scores: one row a token: ``dialogue``, ``position``, ``token_id``, ``token``, ``part`` and ``score``; of a
                monitor also ``call``, ``batch`` and ``row``.
            layer: whose probe it was.
            name: of the series.

        Raises:
            PersonaProbeError: if a column is missing, or there is no row.
        """
        return cls(frame.of_scores(scores, layer, name))

    @property
    def series(self) -> list[str]:
        """The names of the series, in order."""
        return [str(name) for name in self.table["series"].unique()]

    @property
    def layers(self) -> list[int]:
        """The layers that any series has."""
        return sorted(int(layer) for layer in self.table["layer"].unique())

    def to_frame(self) -> pd.DataFrame:
        """A copy of ``table``, with ``value_sd``: SD from the centre."""
        return self.table.assign(value_sd=(self.table["value"] - self.table["centre"]) / self.table["sd"])

    def plot(self, series: str | None = None, dialogue: int = 0) -> go.Figure:
        """A heatmap of token and layer.

        Args:
            series: which one; default the first. One that has a single layer is drawn with all others of that layer.
            dialogue: which one, by its number.

        Raises:
            PersonaProbeError: if there is no such series or dialogue.
        """
        name = self.series[0] if series is None else series
        if name not in self.series:
            raise PersonaProbeError(f"token view: there is no series {name!r}; there are {', '.join(self.series)}")
        rows = self.table[self.table["dialogue"] == dialogue]
        if rows.empty:
            known = ", ".join(str(number) for number in self.table["dialogue"].unique())
            raise PersonaProbeError(f"token view: there is no dialogue {dialogue}; there are {known}")
        own = rows[rows["series"] == name]
        if len(set(own["layer"])) == 1:
            own = rows[(rows["layer"] == own["layer"].iloc[0]) & (rows["unit"] == own["unit"].iloc[0])]
        return token_heatmap(own)

    def headline(self) -> str:
        """What is shown, and where it is largest."""
        tokens = frame.tokens(self.table)
        first = self._shown()[1]
        own = self.table[(self.table["series"] == first.series) & (self.table["layer"] == first.layer)]
        off = (own["value"] - own["centre"]).abs().where(~own["sink"].astype(bool))
        count, layers = tokens["dialogue"].nunique(), self.layers
        span = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
        line = f"{count} dialogue{'s' * (count != 1)}, {len(tokens):,} tokens, {len(self.series)} series ({span})"
        if off.isna().all():
            return line
        row = own.iloc[int(np.nanargmax(off.to_numpy(dtype=float)))]
        return (
            f"{line}; {first.series} at layer {first.layer}: furthest at {page.about(row)}, "
            f"{row['value']:+.{first.digits}f} {first.unit}"
        )

    def shown(self) -> pd.DataFrame:
        """The columns that matter."""
        return self.to_frame()[["dialogue", "position", "token", "part", "series", "layer", "value", "value_sd"]]

    def to_html(self) -> str:
        """The view as a piece of HTML, to be put into a page."""
        found, first = self._readings(), self._shown()[0]
        return str(page.view(frame.tokens(self.table), found, first, self.headline()))

    def _repr_html_(self) -> str:
        return self.to_html()

    def save(self, path: str | Path) -> Path:
        """Write the view as a page of its own, which opens offline.

        Raises:
            PersonaProbeError: if the name does not end in ``.html``, or the folder does not exist.
        """
        target = Path(path)
        if target.suffix != ".html":
            raise PersonaProbeError(f"token view: {target} must end in .html")
        if not target.parent.is_dir():
            raise PersonaProbeError(f"token view: the folder {target.parent} does not exist")
        whole = page.page(Markup(self.to_html()), "Tokens: " + ", ".join(self.series))
        write_text(target, whole)
        return target

    def _readings(self) -> list[Reading]:
        return list(frame.readings(self.table))

    def _shown(self) -> tuple[int, Reading]:
        """What is coloured to begin with: of the first series the layer in the middle, the deeper of two."""
        own = [(number, one) for number, one in enumerate(self._readings()) if one.series == self.series[0]]
        return own[len(own) // 2]
