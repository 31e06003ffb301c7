"""How well a probe separates what it was not trained on, and how well its baselines do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from persona_probe.errors import PersonaProbeError
from persona_probe.probes.inputs import grouping_words
from persona_probe.probes.leakage import Leak
from persona_probe.result import TableResult

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from persona_probe.probes.layer_probes import LayerProbes


_FEWEST_SEEDS = 5
"""With fewer seeds than this, each seed is shown."""
PROBE = "probe"


@dataclass(frozen=True, eq=False, repr=False)
class ProbeScores(TableResult):
    """Out-of-group scores of a linear probe at every layer.

    Attributes:
        table: one row per layer: ``layer``; AUROC as ``value``, ``low``, ``high``, ``n``, ``method``, ``level``;
            average precision as ``ap``, ``ap_low``, ``ap_high``, ``ap_method``; ``prevalence`` (the average precision
            of chance); ``grouping`` (``by group (8 groups)`` or ``ungrouped``). AUROCs compare dialogues within a fold
            only.
        scores: ``(dialogue, layer)`` decision values, each from a probe that never saw the dialogue's group.
        folds: ``(dialogue,)``, in which fold each was scored.
        labels: ``(dialogue,)`` truth values.
        groups: ``(dialogue,)``, or None if ungrouped.
        probes: trained on all dialogues, for use on others; no number in ``table`` comes from them.
        alarms: what was found on both sides of the split.
        by_seed: where seeds were given, one row per layer and seed: ``layer``, ``seed``, ``value`` (the AUROC among the
            seed's dialogues; NaN where no fold has both classes of it) and ``n``. Otherwise None.
    """

    table: pd.DataFrame
    scores: Float[np.ndarray, "dialogue layer"]
    folds: Int[np.ndarray, "... dialogue"]
    labels: Bool[np.ndarray, "... dialogue"]
    groups: np.ndarray | None
    probes: LayerProbes
    alarms: tuple[Leak, ...]
    by_seed: pd.DataFrame | None = None

    @property
    def grouping(self) -> str:
        """What was kept together: ``by group (8 groups)``, or ``ungrouped``."""
        return grouping_words(self.groups)

    @property
    def best_layer(self) -> int:
        """The layer with the largest AUROC.

        It is chosen on the scores that also give its AUROC, which is therefore optimistic, and the more so the more
        layers there are. Choose on development dialogues and report on others, or report all layers.
        """
        return int(self.table["layer"].iloc[int(self.table["value"].to_numpy().argmax())])

    def at(self, layer: int) -> Float[np.ndarray, "... dialogue"]:
        """The scores of one layer."""
        self.probes.at(layer)
        return self.scores[:, self.probes.layers_.index(layer)]

    def shown(self) -> pd.DataFrame:
        """AUROC and average precision by layer, with their intervals."""
        return self.table[["layer", "value", "low", "high", "ap", "ap_low", "ap_high", "prevalence", "n"]]

    def plot(self) -> go.Figure:
        """AUROC by layer with its 95 % interval, and chance."""
        from persona_probe.figures.probe import probe

        return probe(self.table.assign(auroc=self.table["value"], baseline=PROBE, chosen=False))

    def headline(self) -> str:
        """The range of AUROCs over layers, how it was tested, and whether anything leaked."""
        values, n = self.table["value"], len(self.labels)
        sentence = (
            f"{self.probes.kind} probe: AUROC {values.min():.3f} to {values.max():.3f} over {len(values)} layers, "
            f"{n} dialogues, {self.grouping}; chance 0.5"
        )
        return f"{sentence}; {len(self.alarms)} leaks" if self.alarms else sentence

    def __repr__(self) -> str:
        """The best layer and how it was tested."""
        best = self.table[self.table["layer"] == self.best_layer].iloc[0]
        lines = [
            f"ProbeScores({self.probes.kind}, {len(self.table)} layers, {len(self.labels)} dialogues, {self.grouping})",
            f"best layer {self.best_layer}: AUROC {best['value']:.3f} [{best['low']:.3f}, {best['high']:.3f}], "
            f"{self.grouping} (optimistic: chosen on the same scores)",
            *self._few_seeds(),
            *(f"LEAK: {leak}" for leak in self.alarms),
        ]
        return "\n  ".join(lines)

    def _few_seeds(self) -> list[str]:
        """The AUROC of each seed, where seeds are too few for an interval."""
        if self.by_seed is None or self.by_seed["seed"].nunique() >= _FEWEST_SEEDS:
            return []
        rows = self.by_seed[self.by_seed["layer"] == self.best_layer]
        shown = (f"{seed}: {value:.3f}" for seed, value in zip(rows["seed"], rows["value"], strict=True))
        return [f"AUROC there by seed: {', '.join(shown)}"]


@dataclass(frozen=True)
class ProbeTable(TableResult):
    """A probe compared with what it must beat.

    Attributes:
        table: one row per baseline and layer: ``baseline`` (``probe`` is the probe itself), ``layer``, ``value``
            (AUROC), ``low``, ``high``, ``n``, ``method``, ``grouping`` and the other columns of `ProbeScores.table`.
            For shuffled labels ``value`` is the median over shuffles, ``low`` and ``high`` the range that would hold
            the share ``level`` of further ones (the smallest and largest of up to 78). Baselines without layers
            are repeated at every layer.
    """

    table: pd.DataFrame

    def shown(self) -> pd.DataFrame:
        """AUROC by layer, with one column for the probe and each baseline."""
        wide = self.table.pivot_table(index="layer", columns="baseline", values="value", sort=False)
        return wide.reset_index().rename_axis(columns=None)

    def verdict(self, layer: int) -> str:
        """How well the probe and its baselines do at a layer, in a sentence.

        Args:
            layer: which layer; chosen on other dialogues, not on these numbers.

        Raises:
            PersonaProbeError: if there is no such layer.
        """
        rows = self.table[self.table["layer"] == layer].set_index("baseline")
        if rows.empty:
            known = ", ".join(str(known) for known in self.table["layer"].unique())
            raise PersonaProbeError(f"there is no probe at layer {layer}; layers: {known}")
        probe, baselines = rows.loc[PROBE], rows["value"].drop(PROBE)
        compared = ", ".join(f"{name} {value:.3f}" for name, value in baselines.items())
        return (
            f"A linear probe at layer {layer} reaches AUROC {probe['value']:.3f} [{probe['low']:.3f}, "
            f"{probe['high']:.3f}] on dialogues that it was not trained on (n = {probe['n']}, {probe['grouping']}); "
            f"chance: 0.5{f'; baselines: {compared}' if compared else ''}."
        )

    def plot(self, layer: int | None = None) -> go.Figure:
        """AUROC of the probe and of its baselines by layer; ``layer`` is marked as the chosen one."""
        from persona_probe.figures.probe import probe

        return probe(self.table.assign(auroc=self.table["value"], chosen=self.table["layer"] == layer))

    def headline(self) -> str:
        """The range of the probe's AUROCs over layers, how it was tested, and the most that each baseline reaches."""
        probe = self.table[self.table["baseline"] == PROBE]
        most = self.table[self.table["baseline"] != PROBE].groupby("baseline", sort=False)["value"].max()
        baselines = ", ".join(f"{name} {value:.3f}" for name, value in most.items())
        return (
            f"probe: AUROC {probe['value'].min():.3f} to {probe['value'].max():.3f} over {len(probe)} layers, "
            f"{probe['n'].iloc[0]} dialogues, {probe['grouping'].iloc[0]}; at most: {baselines}; chance 0.5"
        )


@dataclass(frozen=True)
class ProbeWithBaselines(ProbeTable):
    """A probe compared with what it must beat, with the probe itself.

    Attributes:
        scores: the probe's own scores, and the probes trained on all dialogues.
    """

    scores: ProbeScores
