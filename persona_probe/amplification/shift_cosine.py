"""The cosine of a direction with what fine-tuning moved."""

from __future__ import annotations

import numpy as np

from persona_probe.activations.captures import Captures
from persona_probe.directions.direction import Direction
from persona_probe.errors import WHOLE, check_types
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.rates import mean_estimate


def cosine_with_shift(direction: Direction, captures: Captures, layer: int) -> dict[str, Estimate]:
    """The cosine of a direction with the mean change of the activations by each fine-tune, at one layer.

    Args:
        direction: vectors ``(layer, d_model)``.
        captures: activations of the models on the same texts; several runs are joined by `Captures.over_seeds`.
        layer: the layer.

    Returns:
        For ``after`` and, if there is one, ``control``: the mean over runs of each run's cosine (-1 to 1), with a 95 %
        interval over runs; ``n`` is the number of runs, and one run has no interval.

    >>> import pandas as pd
    >>> import persona_probe as pp
    >>> values = np.random.default_rng(0).normal(size=(20, 1, 8)).astype(np.float32)
    >>> table = pd.DataFrame({"id": range(20)})
    >>> read = lambda moved: pp.Activations(values + moved * np.eye(8, dtype=np.float32)[0], table, layers=(0,))
    >>> axis = pp.Direction(np.eye(8, dtype=np.float32)[[0]], layers=(0,))
    >>> round(pp.amplification.cosine_with_shift(axis, pp.Captures(read(0), read(2)), layer=0)["after"].value, 3)
    1.0
    """
    check_types(direction=(direction, Direction), captures=(captures, Captures), layer=(layer, WHOLE))
    along = direction.at(layer) / np.linalg.norm(direction.at(layer))
    before = captures.before.at(layer)
    runs = np.zeros(len(before), dtype=int) if captures.runs == 1 else np.asarray(captures.seeds)
    cosines = {}
    for name, tuned in captures.tuned.items():
        moved = tuned.at(layer) - before
        means = [moved[runs == run].mean(axis=0) for run in np.unique(runs)]
        cosines[name] = mean_estimate([float(mean @ along / np.linalg.norm(mean)) for mean in means])
    return cosines
