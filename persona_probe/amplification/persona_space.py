"""The persona space at one layer: the plane of the persona directions, and where the models lie in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import Captures, check_reading
from persona_probe.amplification.amplification import check_families, check_shapes
from persona_probe.amplification.layer import QUANTILE
from persona_probe.directions.direction import Direction
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.result import TableResult
from persona_probe.statistics.nulls import matched_random_directions
from persona_probe.statistics.rates import mean_estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go

_COLUMNS = (
    "kind", "name", "x", "x_low", "x_high", "y", "y_low", "y_high", "in_plane", "in_plane_random", "n", "n_questions",
)  # fmt: skip
_FLAT = 1e-4
"""If the second component of the directions is shorter than this share of the first, they lie on a line."""


@dataclass(frozen=True)
class PersonaSpace(TableResult):
    """Directions and models in the plane of the directions' first two components.

    Attributes:
        table: one row per direction and per model (``kind`` and ``name``) with its coordinates ``x`` and ``y`` in
            residual-stream units; for models (``before``, ``after``, ``control``) with 95 % intervals over questions
            (``x_low`` to ``x_high``, ``y_low`` to ``y_high``), ``n`` texts and ``n_questions``; for after and control
            with ``in_plane``, the share of the squared norm of their mean change from before that lies in the plane,
            and ``in_plane_random``, below which 97.5 % of random planes (with the reference's covariance) are. The same
            in every row are ``layer``, and ``x_explained`` and ``y_explained``, each component's share of the squared
            length of the directions.
    """

    table: pd.DataFrame

    def shown(self) -> pd.DataFrame:
        """The coordinates of all directions and models."""
        return self.table[["kind", "name", "x", "y", "in_plane", "in_plane_random", "n"]]

    def plot(self) -> go.Figure:
        """The map: a figure with directions as points, and models as crosses of their intervals."""
        from persona_probe.figures.persona_space import persona_space as draw

        return draw(self.table)

    def headline(self) -> str:
        """How much of the directions, and of the models' changes, lies in the plane."""
        first = self.table.iloc[0]
        line = (
            f"layer {first['layer']}: two components hold {first['x_explained'] + first['y_explained']:.0%} of "
            f"{int((self.table['kind'] == 'direction').sum())} directions' squared length"
        )
        for row in self.table[self.table["in_plane"].notna()].to_dict("records"):
            line += f"; {row['in_plane']:.0%} of {row['name']}'s change (random planes: {row['in_plane_random']:.0%})"
        return line


def measure_persona_space(
    directions: Mapping[str, Direction],
    captures: Captures,
    reference: Activations,
    *,
    layer: int,
    n_random: int = 1000,
    seed: int = 0,
    allow_unrelated: bool = False,
) -> PersonaSpace:
    """Where before, after and the control lie among personas, at one layer.

    The axes are the principal components, not centred, of the directions' raw vectors. If these are roles minus the
    default persona, the default lies at the origin, and the first axis is roughly the assistant axis of Lu et al. 2026
    ("The assistant axis"). Give directions that are mean differences: the length of others has no meaning.

    Args:
        directions: two or more directions of roles or personas, by name; vectors ``(layer, d_model)``.
        captures: activations ``(dialogue, layer, d_model)`` of the models on the same texts; the control may be
            missing.
        reference: the before model's activations on its own answers; their mean is the origin.
        layer: the layer.
        n_random: the number of random planes.
        seed: the seed of the random planes.
        allow_unrelated: only warn if a direction, the reference, after or control is not known to be of before's
            family.

    Returns:
        `PersonaSpace`.

    Raises:
        PersonaProbeError: if there are fewer than two directions, they lie on a line, the layer is missing somewhere,
            or anything was read in another way or by an unrelated model.
    """
    check_types(
        directions=(directions, {str: Direction}),
        captures=(captures, Captures),
        reference=(reference, Activations),
        layer=(layer, WHOLE),
        n_random=(n_random, WHOLE),
        seed=(seed, WHOLE),
    )
    if len(directions) < 2:
        raise PersonaProbeError(f"measure_persona_space: a plane needs two directions or more; got {len(directions)}")
    check_shapes(directions, captures, reference)
    check_reading("the reference", reference.source, captures.before.source)
    check_families([*directions.values()], captures, reference, allow_unrelated)
    vectors = np.stack([direction.at(layer) for direction in directions.values()]).astype(np.float64)
    basis, explained = _plane(vectors, layer)
    yardstick = reference.at(layer).astype(np.float64)
    rows: list[dict[str, Any]] = [
        {"kind": "direction", "name": name, "x": float(x), "y": float(y)}
        for name, (x, y) in zip(directions, vectors @ basis.T, strict=True)
    ]
    before = captures.before.at(layer).astype(np.float64)
    random = _random_planes(yardstick, n_random, seed)
    for model, read in {"before": captures.before, **captures.tuned}.items():
        values = read.at(layer).astype(np.float64)
        rows.append(
            {
                "kind": "model",
                "name": model,
                **_placed((values - yardstick.mean(axis=0)) @ basis.T, captures),
                **({} if model == "before" else _held((values - before).mean(axis=0), basis, random)),
            }
        )
    common = {"layer": layer, "x_explained": explained[0], "y_explained": explained[1]}
    return PersonaSpace(pd.DataFrame(rows, columns=list(_COLUMNS)).assign(**common))


def _plane(vectors: Float[np.ndarray, "k d_model"], layer: int) -> tuple[Float[np.ndarray, "2 d_model"], list[float]]:
    """An orthonormal basis of the first two components, with most directions on the positive side; and their shares."""
    _, sizes, components = np.linalg.svd(vectors, full_matrices=False)
    if sizes[1] <= _FLAT * sizes[0]:
        raise PersonaProbeError(
            f"measure_persona_space: the {len(vectors)} directions lie on one line at layer {layer}, so they span no "
            "plane; give directions of other personas too"
        )
    basis = components[:2] * np.where((vectors @ components[:2].T).sum(axis=0) < 0, -1.0, 1.0)[:, None]
    shares = np.square(sizes) / np.square(sizes).sum()
    return basis, [float(share) for share in shares[:2]]


def _placed(coordinates: Float[np.ndarray, "dialogue 2"], captures: Captures) -> dict[str, float]:
    """The means along both axes, with their intervals."""
    placed: dict[str, float] = {}
    questions = captures.questions
    for axis, values in zip("xy", coordinates.T, strict=True):
        mean = mean_estimate(values, questions=questions, seeds=captures.seeds)
        placed |= {axis: mean.value, f"{axis}_low": mean.low, f"{axis}_high": mean.high}
    count = len(coordinates) if questions is None else int(pd.unique(questions).size)
    return {**placed, "n": len(coordinates), "n_questions": count}


def _held(
    change: Float[np.ndarray, "... d_model"],
    basis: Float[np.ndarray, "2 d_model"],
    random: Float[np.ndarray, "plane 2 d_model"],
) -> dict[str, float]:
    """The share of a change's squared norm in the plane, and below which random planes are; empty without a change."""
    whole = float(change @ change)
    if not whole:
        return {}
    held = float(np.square(basis @ change).sum()) / whole
    chance = np.square(random @ change).sum(axis=1) / whole
    return {"in_plane": held, "in_plane_random": float(np.quantile(chance, QUANTILE))}


def _random_planes(
    rows: Float[np.ndarray, "dialogue d_model"], n: int, seed: int
) -> Float[np.ndarray, "plane 2 d_model"]:
    pairs = matched_random_directions(rows, 2 * n, seed).reshape(n, 2, -1)
    first, second = pairs[:, 0], pairs[:, 1]
    second = second - np.einsum("nd,nd->n", first, second)[:, None] * first
    return np.stack([first, second / np.linalg.norm(second, axis=1, keepdims=True)], axis=1)
