"""Dialogues with a number at every token, layer by layer: the result of `persona_probe.view_tokens`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from persona_probe.errors import WHOLE, PersonaProbeError, check_types
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
        table: one row per token, series and layer: ``dialogue`` (row number), ``name`` (of the dialogue), ``position``
            (from 0), ``token_id``, ``token`` (its text), ``part`` (``prompt``, with the assistant header; ``response``;
            ``end``, what the template writes after it), ``special`` (whether it is one of the template's own tokens),
            ``series``, ``unit``, ``layer``, ``value`` (NaN where nothing was read), ``centre`` (the value that gets no
            colour), ``sd`` (one standard deviation over the reference's dialogues; NaN without a reference), ``random``
            (how far from the centre 97.5 % of tokens are along random directions; NaN where there is no such null) and
            ``sink`` (whether the token is an attention sink at that layer).
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        """Check and sort the table."""
        object.__setattr__(self, "table", frame.checked(self.table))

    @classmethod
    def from_frame(cls, table: pd.DataFrame) -> TokenView:
        """The view of a table that `to_frame` returned; needs no torch.

        Raises:
            PersonaProbeError: if a column is missing, or a series does not have each token once.
        """
        check_types(table=(table, pd.DataFrame))
        return cls(table)

    @classmethod
    def from_scores(cls, scores: pd.DataFrame, layer: int, *, name: str = "probe") -> TokenView:
        """The view of a probe's scores, from `persona_probe.probes.token_scores` or `persona_probe.probes.monitor`.

        Args:
            scores: one row per token: ``dialogue``, ``position``, ``token_id``, ``token``, ``part`` and ``score``; from
                a monitor also ``call``, ``batch`` and ``row``.
            layer: the layer of the probe.
            name: the name of the series.

        Raises:
            PersonaProbeError: if a column is missing, or there is no row.

        Examples:
            >>> scores = pd.DataFrame({
            ...     "dialogue": 0,
            ...     "position": [0, 1],
            ...     "token_id": [7, 8],
            ...     "token": ["Rest", "Ġwell"],
            ...     "part": "response",
            ...     "score": [0.5, 2.0],
            ... })
            >>> view = TokenView.from_scores(scores, layer=3)
            >>> view.series, view.layers
            (['probe'], [3])
            >>> view.to_frame()["token"].tolist()
            ['Rest', ' well']
        """
        check_types(scores=(scores, pd.DataFrame), layer=(layer, WHOLE))
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
        """A heatmap over tokens and layers.

        Args:
            series: which series; default the first. A series with a single layer is drawn together with all others of
                that layer and unit.
            dialogue: which dialogue, by its number.

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
        drawn = rows[rows["series"] == name]
        if len(set(drawn["layer"])) == 1:
            drawn = rows[(rows["layer"] == drawn["layer"].iloc[0]) & (rows["unit"] == drawn["unit"].iloc[0])]
        return token_heatmap(drawn)

    def headline(self) -> str:
        """How much is shown, and at which token the first series is largest."""
        tokens = frame.tokens(self.table)
        first = self._shown()[1]
        rows = self.table[(self.table["series"] == first.series) & (self.table["layer"] == first.layer)]
        off = (rows["value"] - rows["centre"]).abs().where(~rows["sink"].astype(bool))
        count, layers = tokens["dialogue"].nunique(), self.layers
        span = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
        line = f"{count} dialogue{'s' * (count != 1)}, {len(tokens):,} tokens, {len(self.series)} series ({span})"
        if off.isna().all():
            return line
        row = rows.iloc[int(np.nanargmax(off.to_numpy(dtype=float)))]
        return (
            f"{line}; {first.series} at layer {first.layer}: furthest at {page.about(row)}, "
            f"{row['value']:+.{first.digits}f} {first.unit}"
        )

    def shown(self) -> pd.DataFrame:
        """The most important columns."""
        return self.to_frame()[["dialogue", "position", "token", "part", "series", "layer", "value", "value_sd"]]

    def to_html(self) -> str:
        """The view as a piece of HTML, for use inside a page."""
        return str(page.view(frame.tokens(self.table), self._readings(), self._shown()[0], self.headline()))

    def _repr_html_(self) -> str:
        return self.to_html()

    def save(self, path: str | Path) -> Path:
        """Write the view as a page of its own, which opens offline, and return its path.

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
        """What is coloured at first: the middle layer of the first series (of two middle ones the deeper)."""
        readings = [(number, one) for number, one in enumerate(self._readings()) if one.series == self.series[0]]
        return readings[len(readings) // 2]
