"""Finding settings by forward passes: doses are doubled until the model breaks, then refined."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from persona_probe.errors import PersonaProbeError
from persona_probe.steering.search.candidates import Candidate, Candidates
from persona_probe.steering.search.grid import DOSED, REFINED, Grid
from persona_probe.steering.search.reading import Reader, gains


@dataclass(frozen=True)
class Rung:
    """A setting that was read in forward passes.

    Attributes:
        candidate: the setting.
        kl: mean KL to the unsteered model, in nats per token.
        gain: how much the wanted answers gain on the other ones, in nats per token.
        wanted: how much likelier the wanted answers become, in nats per token.
        n: the number of questions.
    """

    candidate: Candidate
    kl: float
    gain: float
    wanted: float
    n: int

    @property
    def kind(self) -> str:
        """The kind of intervention."""
        return self.candidate.intervention.kind

    def within(self, budget: float) -> bool:
        """Whether the KL is within a budget; a stream that overflowed is not."""
        return bool(np.isfinite(self.kl) and self.kl <= budget and np.isfinite(self.gain))


Place = tuple[int, ...]


def _gain(rung: Rung) -> float:
    return rung.gain


def _smaller_gain(rung: Rung) -> float:
    return min(rung.gain, rung.wanted)


class Ladder:
    """The settings of a grid, read by forward passes.

    Args:
        reader: measures KL and behaviour.
        candidates: makes the settings.
        layers: the layers that are tried.
        grid: what is tried.

    Attributes:
        rungs: every setting that was read, in order.

    Raises:
        PersonaProbeError: if there are no layers.
    """

    def __init__(self, reader: Reader, candidates: Candidates, layers: Sequence[int], grid: Grid) -> None:
        if not layers:
            raise PersonaProbeError("there are no layers to try")
        self._reader, self._candidates, self._grid = reader, candidates, grid
        self.rungs: list[Rung] = []
        first, *others = grid.kinds
        self._climb(first, [(layer,) for layer in layers])
        best = self._best_layers(min(grid.followed, len(layers)))
        for kind in others:
            self._climb(kind, [(layer,) for layer in best])
        if "add" in grid.kinds and len(layers) > 2:
            self._climb("add", [tuple(layers[1:])])

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that were tried, in order."""
        return self._grid.kinds

    @property
    def sign(self) -> int:
        """1 to induce, -1 to suppress."""
        return self._candidates.sign

    @property
    def broken_at(self) -> float:
        """The KL beyond which the model counts as broken."""
        return max(self._grid.budgets)

    def best(self, *, likelier: bool = False) -> list[Rung]:
        """For each kind, the settings worth sampling within each budget; the mildest one if all break the model.

        Three settings per budget, which are often the same, since forward passes can mislead in three ways: the one
        whose gain is the largest; the one whose smaller gain is (where the wanted answers themselves become less
        likely, the model may be about to break); and the largest dose at the layer with the largest gain (where the
        answers that are read hardly differ, as those of a small model that was asked to play a persona, only a dose
        that uses the budget shows anything). A setting that is chosen in several ways is in the list once.

        Args:
            likelier: only by the smaller gain: where no answer is sampled, nothing else says that the model still
                makes sense.
        """
        taken: list[Rung] = []
        for kind in self._grid.kinds:
            own = [rung for rung in self.rungs if rung.kind == kind]
            whole = [rung for rung in own if rung.within(self.broken_at)]
            if not whole:
                taken.append(min(own, key=lambda rung: rung.kl if np.isfinite(rung.kl) else np.inf))
                continue
            steepest = max(whole, key=_gain).candidate.layers
            for budget in sorted(self._grid.budgets):
                within = [rung for rung in whole if rung.within(budget)]
                there = [rung for rung in within if rung.candidate.layers == steepest]
                picked = [max(within, key=_smaller_gain)] if within else []
                if not likelier:
                    picked += [max(within, key=_gain)] if within else []
                    picked += [max(there, key=lambda rung: rung.kl)] if there else []
                taken += [rung for number, rung in enumerate(picked) if rung not in (*taken, *picked[:number])]
        return taken

    def table(self) -> pd.DataFrame:
        """One row per setting that was read: kind, ``layers``, ``setting``, ``kl``, ``gain`` and ``wanted``."""
        return pd.DataFrame(
            {
                "stage": "read",
                "intervention": rung.kind,
                "layers": rung.candidate.layers,
                "setting": rung.candidate.setting,
                "kl": rung.kl,
                "gain": rung.gain,
                "wanted": rung.wanted,
                "n": rung.n,
            }
            for rung in self.rungs
        )

    def _read(self, made: Sequence[Candidate]) -> list[Rung]:
        if not made:
            return []
        reading = self._reader.read([candidate.intervention for candidate in made])
        rungs = [
            Rung(candidate, float(kl), *gains(moved, self.sign), moved.shape[-1])
            for candidate, kl, moved in zip(made, reading.kl, reading.moved, strict=True)
        ]
        self.rungs += rungs
        return rungs

    def _climb(self, kind: str, places: Sequence[Place]) -> None:
        if kind not in DOSED:
            self._read([made for (layer,) in places for made in self._candidates.undosed(kind, layer)])
            return
        tried: dict[Place, list[Rung]] = {place: [] for place in places}
        open_places = list(places)
        for dose in self._grid.doses:
            read = self._read([self._candidates.dosed(kind, place, dose) for place in open_places])
            for place, rung in zip(open_places, read, strict=True):
                tried[place].append(rung)
            open_places = [place for place in open_places if tried[place][-1].within(self.broken_at)]
            if not open_places:
                break
        if kind == "clamp":
            marks = [self._candidates.landmark(layer) for (layer,) in places]
            self._read([mark for mark in marks if mark is not None])
        between = [
            self._candidates.dosed(kind, place, dose) for place, rungs in tried.items() for dose in _between(rungs)
        ]
        self._read(between)

    def _best_layers(self, n: int) -> list[int]:
        """The layers at which the first kind moves behaviour furthest before the model breaks."""
        best: dict[int, float] = {}
        for rung in self.rungs:
            layer = int(rung.candidate.layers)
            gain = rung.gain if rung.within(self.broken_at) else -np.inf
            best[layer] = max(best.get(layer, -np.inf), gain)
        return sorted(sorted(best, key=lambda layer: -best[layer])[:n])


def _between(rungs: Sequence[Rung]) -> list[float]:
    """The doses half-way, in ratio, between the last doses that were tried."""
    doses = [float(rung.candidate.setting or 0.0) for rung in rungs][-REFINED - 1 :]
    return [float(np.sqrt(low * high)) for low, high in itertools.pairwise(doses)]
