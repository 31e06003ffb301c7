"""Where before, after and the control stand along directions, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import Captures, check_reading
from persona_probe.amplification.amplification import ONE, check_families, check_shapes
from persona_probe.amplification.layer import spread_along, unit
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.result import TableResult
from persona_probe.statistics.rates import mean_estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Projections(TableResult):
    """Mean projections of the models that are compared.

    Attributes:
        table: one row a ``direction``, ``layer`` and ``model`` (``before``, ``after``, ``control``): ``mean`` of the
            projection, in residual-stream units and from the reference's mean; the same in SD of the reference's
            dialogues along that direction, ``mean_sd``, with its 95 % interval ``low_sd`` to ``high_sd`` over questions
            (and seeds); ``n`` texts and ``n_questions``. Intervals are of each mean by itself: that of the *change*,
            which pairs texts, is narrower, and is `Amplification`'s.
    """

    table: pd.DataFrame

    def plot(self, direction: str | None = None, layer: int | None = None) -> go.Figure:
        """The means by layer, before, after and control.

        Args:
            direction: which direction; default the first.
            layer: to be marked as the chosen one.

        Raises:
            PersonaProbeError: if the direction was not projected on.
        """
        from persona_probe.figures.projections import projections

        names = self.table["direction"].unique().tolist()
        if direction is not None and direction not in names:
            raise PersonaProbeError(f"direction {direction!r} was not projected on; there are: {', '.join(names)}")
        rows = self.table[self.table["direction"] == (names[0] if direction is None else direction)]
        return projections(rows.assign(chosen=rows["layer"] == layer))

    def headline(self) -> str:
        """Where each model stands along the first direction at the last layer."""
        first = self.table[self.table["direction"] == self.table["direction"].iloc[0]]
        last = first[first["layer"] == first["layer"].iloc[-1]].to_dict("records")
        said = (f"{row['model']} {row['mean_sd']:+.2f} SD [{row['low_sd']:.2f}, {row['high_sd']:.2f}]" for row in last)
        return f"{last[0]['direction']}, layer {last[0]['layer']}: {', '.join(said)}"


def measure_projections(
    directions: Direction | Mapping[str, Direction],
    captures: Captures,
    reference: Activations,
    *,
    allow: bool = False,
) -> Projections:
    """Mean projection of before, after and the control on directions, at every captured layer.

    What `measure_amplification` measures is the difference of these means, with its nulls.

    Args:
        directions: vectors ``(layer, d_model)``, one direction or several by name.
        captures: the same texts through the models, ``(dialogue, layer, d_model)``; the control may be missing.
        reference: the before model's activations on its own answers to development questions: their mean is 0, and
            their standard deviation 1 SD.
        allow: only warn where a direction, the reference, after or control is not known to be of before's family.

    Returns:
        `Projections`.

    Raises:
        PersonaProbeError: if there is no direction, a layer is missing or of another width, the reference does not vary
            along a direction, was read in another way than the captures, or anything is of an unrelated model.
    """
    named = {ONE: directions} if isinstance(directions, Direction) else dict(directions)
    if not named:
        raise PersonaProbeError("projections: there is no direction to project on: the mapping is empty")
    check_shapes(named, captures, reference)
    check_reading("the reference", reference.source, captures.before.source)
    check_families([*named.values()], captures, reference, allow)
    questions, seeds = captures.questions, captures.seeds
    count = len(captures.before) if questions is None else int(pd.unique(questions).size)
    rows: list[dict[str, Any]] = []
    for name, direction in named.items():
        for layer in captures.before.layers:
            along, yardstick = unit(direction.at(layer)), reference.at(layer).astype(np.float64)
            sd, zero = spread_along(yardstick, along, name, layer), float((yardstick @ along).mean())
            for model, read in {"before": captures.before, **captures.tuned}.items():
                values = (read.at(layer).astype(np.float64) @ along - zero) / sd
                mean = mean_estimate(values, questions=questions, seeds=seeds)
                rows.append(
                    {
                        "direction": name,
                        "layer": layer,
                        "model": model,
                        "mean": mean.value * sd,
                        "mean_sd": mean.value,
                        "low_sd": mean.low,
                        "high_sd": mean.high,
                        "n": mean.n,
                        "n_questions": count,
                    }
                )
    return Projections(pd.DataFrame(rows))
