"""How far directions agree, compared with how far random directions agree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.directions.direction import Direction
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.result import TableResult
from persona_probe.statistics.effect_sizes import cosine
from persona_probe.statistics.nulls import matched_random_directions

if TYPE_CHECKING:
    import plotly.graph_objects as go

_MOST_LINES = 6
"""The largest number of pairs drawn as lines by layer; more are shown as a matrix."""


@dataclass(frozen=True)
class CosineTable(TableResult):
    """Cosines between directions.

    Attributes:
        table: one row per pair and layer: ``layer``, ``first``, ``second``, ``cosine`` and, if there was a reference,
            ``null_high``: 97.5 % of random directions have a smaller ``|cosine|`` with the first direction.
    """

    table: pd.DataFrame

    @property
    def layers(self) -> list[int]:
        """The layer numbers, in order."""
        return sorted(int(layer) for layer in self.table["layer"].unique())

    def at(self, layer: int) -> pd.DataFrame:
        """The cosines of one layer as a square table, names on both sides.

        Raises:
            PersonaProbeError: if the directions have no such layer.
        """
        rows = self.table[self.table["layer"] == self._checked(layer)]
        names = list(dict.fromkeys([*rows["first"], *rows["second"]]))
        square = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
        for first, second, value in zip(rows["first"], rows["second"], rows["cosine"], strict=True):
            square.loc[first, second] = square.loc[second, first] = value
        return square

    def plot(self, layer: int | None = None) -> go.Figure:
        """The matrix of one layer; without ``layer``, each pair by layer, or of many pairs the middle layer's matrix.

        Raises:
            PersonaProbeError: if the directions have no such layer.
        """
        from persona_probe.figures.cosine_matrix import cosine_matrix
        from persona_probe.figures.cosines import cosines

        if layer is None and len(self.table) <= _MOST_LINES * len(self.layers) and len(self.layers) > 1:
            return cosines(self.table.assign(null_high=self.table.get("null_high", np.nan)))
        return cosine_matrix(self.table, layer=None if layer is None else self._checked(layer))

    def verdict(self, name: str, layer: int) -> str:
        """How far one direction agrees with every other at a layer, compared with random ones, in a sentence.

        Raises:
            PersonaProbeError: if the table has no such direction or layer.
        """
        rows = self.table[self.table["layer"] == self._checked(layer)]
        rows = rows[(rows["first"] == name) | (rows["second"] == name)]
        if rows.empty:
            known = ", ".join(dict.fromkeys([*self.table["first"], *self.table["second"]]))
            raise PersonaProbeError(f"there are no cosines with the direction {name!r}; directions: {known}")
        others = rows["second"].where(rows["first"] == name, rows["first"])
        cosines = ", ".join(f"{value:+.2f} with {other!r}" for value, other in zip(rows["cosine"], others, strict=True))
        bound = rows["null_high"].max() if "null_high" in rows else np.nan
        null = "" if np.isnan(bound) else f" (97.5 % of random directions: below {bound:.2f})"
        return f"At layer {layer} the direction {name!r} has cosine {cosines}{null}."

    def headline(self) -> str:
        """The range of the cosines, and how many exceed those of random directions."""
        values = self.table["cosine"]
        pairs, layers = len(self.table) // len(self.layers), len(self.layers)
        line = f"{pairs} pairs of directions at {layers} layers: cosine {values.min():.2f} to {values.max():.2f}"
        if "null_high" not in self.table:
            return f"{line}; no null, since no reference was given"
        above = int((values.abs() > self.table["null_high"]).sum())
        return f"{line}; {above} of {len(values)} exceed 97.5 % of random directions"

    def _checked(self, layer: int) -> int:
        if layer not in self.layers:
            raise PersonaProbeError(
                f"there are no cosines at layer {layer}; layers: {', '.join(map(str, self.layers))}"
            )
        return layer


def cosine_table(
    directions: Mapping[str, Direction],
    reference: Activations | None = None,
    *,
    n_random: int = 1000,
    seed: int = 0,
) -> CosineTable:
    """The cosines between all pairs of directions at each layer.

    Args:
        directions: by name, with the same layers.
        reference: activations whose covariance the random directions of the null have; None for no null.
        n_random: number of random directions.
        seed: seed of the random directions.

    Raises:
        PersonaProbeError: for fewer than two directions, or directions that do not belong together.

    >>> import persona_probe as pp
    >>> doctor, villain = pp.Direction(np.array([[3.0, 4.0]]), (2,)), pp.Direction(np.array([[-1.0, 0.0]]), (2,))
    >>> pp.directions.cosine_table({"doctor": doctor, "villain": villain}).table
       layer   first   second  cosine
    0      2  doctor  villain    -0.6
    """
    check_types(
        directions=(directions, {str: Direction}),
        reference=(reference, Activations, None),
        n_random=(n_random, WHOLE),
        seed=(seed, WHOLE),
    )
    if len(directions) < 2:
        raise PersonaProbeError(f"cosine_table: got {len(directions)} directions; give at least two, by name")
    first = next(iter(directions.values()))
    for other in directions.values():
        first.check_together(other)
    rows = []
    for column, layer in enumerate(first.layers):
        random = None if reference is None else matched_random_directions(reference.at(layer), n_random, seed)
        for one, two in itertools.combinations(directions, 2):
            pair = [directions[name].vectors[column : column + 1] for name in (one, two)]
            row = {"layer": layer, "first": one, "second": two, "cosine": float(cosine(*pair)[0])}
            if random is not None:
                along = directions[one].units()[column]
                row["null_high"] = float(np.quantile(np.abs(random @ along), 0.975))
            rows.append(row)
    return CosineTable(pd.DataFrame(rows).sort_values(["first", "second", "layer"], ignore_index=True, kind="stable"))
