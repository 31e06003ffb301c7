"""Where before, after and the control lie on directions, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import Captures, check_reading
from persona_probe.amplification.amplification import ONE, check_families, check_shapes
from persona_probe.amplification.layer import unit, yardstick_along
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError, check_types
from persona_probe.result import TableResult
from persona_probe.statistics.rates import mean_estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Projections(TableResult):
    """Mean projections of the models that are compared.

    Attributes:
        table: one row per ``direction``, ``layer`` and ``model`` (``before``, ``after``, ``control``): the ``mean`` of
            the projection, in residual-stream units and relative to the reference's mean; the same in SD of the
            reference's dialogues along that direction, ``mean_sd``, with its 95 % interval ``low_sd`` to ``high_sd``
            over questions (and seeds); ``n`` texts and ``n_questions``. Each interval is of one mean alone: that of the
            *change*, which pairs texts, is narrower; `Amplification` has it.
    """

    table: pd.DataFrame

    def plot(self, direction: str | None = None, layer: int | None = None) -> go.Figure:
        """A figure of the means of before, after and the control, by layer.

        Args:
            direction: the name of the direction; default the first.
            layer: the layer that is marked as the chosen one.

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
        """Where each model lies on the first direction at the last layer."""
        first = self.table[self.table["direction"] == self.table["direction"].iloc[0]]
        last = first[first["layer"] == first["layer"].iloc[-1]].to_dict("records")
        means = (f"{row['model']} {row['mean_sd']:+.2f} SD [{row['low_sd']:.2f}, {row['high_sd']:.2f}]" for row in last)
        return f"{last[0]['direction']}, layer {last[0]['layer']}: {', '.join(means)}"


def measure_projections(
    directions: Direction | Mapping[str, Direction],
    captures: Captures,
    reference: Activations,
    *,
    allow_unrelated: bool = False,
) -> Projections:
    """The mean projections of before, after and the control on directions, at every captured layer.

    `measure_amplification` measures the difference of these means, with its nulls.

    Args:
        directions: one direction, or several by name; vectors ``(layer, d_model)``.
        captures: activations ``(dialogue, layer, d_model)`` of the models on the same texts; the control may be
            missing.
        reference: the before model's activations on its own answers to development questions: their mean is 0, and
            their standard deviation is 1 SD.
        allow_unrelated: only warn if a direction, the reference, after or control is not known to be of before's
            family.

    Returns:
        `Projections`.

    Raises:
        PersonaProbeError: if there is no direction, a layer is missing or has another width, the reference does not
            vary along a direction or was read in another way than the captures, or anything comes from an unrelated
            model.

    Examples:
        >>> import numpy as np
        >>> import pandas as pd
        >>> import persona_probe as pp
        >>> def read(values):  # what capture gives: (dialogue, layer, d_model)
        ...     table = pd.DataFrame({"id": range(4), "question": list("abcd")})
        ...     return pp.Activations(np.array(values, dtype=np.float32)[:, None], table, layers=(0,))
        >>> before = np.array([[-1, 0], [-1, 1], [1, 0], [1, 1]])
        >>> captures = pp.Captures(read(before), read(before + [2, 0]))
        >>> direction = pp.Direction(np.array([[3, 0]], dtype=np.float32), layers=(0,))
        >>> pp.amplification.measure_projections(direction, captures, read(before)).table[["model", "mean"]]
            model  mean
        0  before   0.0
        1   after   2.0
    """
    check_types(
        directions=(directions, Direction, {str: Direction}),
        captures=(captures, Captures),
        reference=(reference, Activations),
    )
    named = {ONE: directions} if isinstance(directions, Direction) else dict(directions)
    if not named:
        raise PersonaProbeError("projections: there is no direction to project on: the mapping is empty")
    check_shapes(named, captures, reference)
    check_reading("the reference", reference.source, captures.before.source)
    check_families([*named.values()], captures, reference, allow_unrelated)
    questions, seeds = captures.questions, captures.seeds
    count = len(captures.before) if questions is None else int(pd.unique(questions).size)
    rows: list[dict[str, Any]] = []
    for name, direction in named.items():
        for layer in captures.before.layers:
            along = unit(direction.at(layer))
            sd = yardstick_along(reference, along, name, layer).sd
            zero = float((reference.at(layer).astype(np.float64) @ along).mean())
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
