"""The result of measuring amplification along training, at every snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from persona_probe.directions.replication import NO_LAYER
from persona_probe.errors import PersonaProbeError
from persona_probe.result import TableResult
from persona_probe.statistics.replication import FAILS, UNCHECKED, reliability

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class AmplificationCourse(TableResult):
    """Amplification along training.

    Attributes:
        table: the rows of `Amplification`'s table for each snapshot, after columns ``step`` and ``name``.
            ``p_corrected`` of ``after`` is corrected for all snapshots, and all directions and layers at which these
            replicate, together.
    """

    table: pd.DataFrame

    def shown(self) -> pd.DataFrame:
        """The rows of ``after``, with the most important columns."""
        columns = ["step", "name", "direction", "layer", "shift_sd", "low_sd", "high_sd", "random_sd", "p_corrected"]
        columns += ["replication", "split_half_cosine", "held_out_auroc"]
        return self.table.loc[self.table["model"] == "after", columns]

    def plot(self, layer: int | None = None, direction: str | None = None, *, axis: str = "training step") -> go.Figure:
        """A figure of the shift at one layer along training, with its nulls.

        Args:
            layer: the layer; default the one that moved most at the last snapshot, of those at which the direction
                replicates, which makes that shift look larger than it is: give one that was chosen on other topics.
            direction: the name of the direction; default the first.
            axis: what the steps are.

        Raises:
            PersonaProbeError: if the layer or direction was not measured.
        """
        from persona_probe.figures.amplification_course import amplification_course

        name = str(self.table["direction"].iloc[0] if direction is None else direction)
        at = self._farthest(name) if layer is None else layer
        if not ((self.table["direction"] == name) & (self.table["layer"] == at)).any():
            raise PersonaProbeError(
                f"{name!r} was not measured at layer {at}; measured: "
                f"{', '.join(repr(n) for n in self.table['direction'].unique())} at layers "
                f"{', '.join(map(str, self.table['layer'].unique()))}"
            )
        return amplification_course(self.table, layer=at, direction=name, axis=axis)

    def headline(self) -> str:
        """The last snapshot's largest shift along the first direction, compared with random directions."""
        name = str(self.table["direction"].iloc[0])
        if self._allowed(name).empty:
            return f"{name}: {NO_LAYER}, so that no shift along it shows anything"
        layer = self._farthest(name)
        rows = self.table[(self.table["direction"] == name) & (self.table["layer"] == layer)]
        last = rows[rows["model"] == "after"].iloc[-1]
        trust = "replication not checked" if last["replication"] == UNCHECKED else reliability(last.to_dict())
        return (
            f"{name}, layer {layer} (moved most), step {last['step']:g} of {rows['step'].nunique()} snapshots: "
            f"{last['shift_sd']:+.2f} SD [{last['low_sd']:.2f}, {last['high_sd']:.2f}]; 97.5 % of random directions "
            f"are below {last['random_sd']:.2f} SD; {trust}"
        )

    def _allowed(self, name: str) -> pd.DataFrame:
        """The rows of ``after`` at layers at which the direction replicates, or was not checked."""
        table = self.table
        return table[(table["direction"] == name) & (table["model"] == "after") & (table["replication"] != FAILS)]

    def _farthest(self, name: str) -> int:
        """The layer that moved most at the last snapshot, of those that are allowed; the first if there is none."""
        rows = self._allowed(name)
        last = rows[rows["step"] == rows["step"].iloc[-1]] if len(rows) else self.table
        return int(last["layer"].iloc[int(last["shift_sd"].abs().to_numpy().argmax())])
