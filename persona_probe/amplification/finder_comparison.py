"""A comparison of all finders on the same data, scored on the same held-out dialogues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import Captures
from persona_probe.activations.questions import questions_of
from persona_probe.amplification.amplification import measure_amplification
from persona_probe.amplification.finder_comparison_result import FinderComparison
from persona_probe.directions.cosines import cosine_table
from persona_probe.directions.direction import Direction
from persona_probe.directions.find import FINDERS, find_direction
from persona_probe.directions.finders.poles import Poles
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.statistics.auroc import auroc_estimate
from persona_probe.statistics.replication import RELIABILITY


def compare_finders(
    positive: Activations,
    negative: Activations,
    held_out: tuple[Activations, Activations],
    captures: Captures,
    reference: Activations,
    *,
    finders: Sequence[str] | None = None,
    others: Mapping[str, Direction] | None = None,
    other_traits: Mapping[str, Direction] | None = None,
    layer: int | None = None,
    n_random: int = 1000,
    seed: int = 0,
    allow_unrelated: bool = False,
) -> FinderComparison:
    """The directions of all finders from the same poles, scored on dialogues of other questions.

    Args:
        positive: activations with the trait, on development questions.
        negative: activations without the trait.
        held_out: both poles on questions that none of the finders saw.
        captures: before, after and control on the before model's own answers to such questions.
        reference: the before model's activations on its own answers to development questions, over which one standard
            deviation is computed.
        finders: names of finders; default all that can use these poles.
        others: directions from recipes, which are scored too.
        other_traits: directions of other traits, a null for all.
        layer: the layer at which to compare; default the one at which the finders (without the nulls) separate best, on
            average, on halves of the development questions (``held_out_auroc`` of their cards), of those at which at
            least one of them replicates.
        n_random: the number of random directions of each kind.
        seed: the seed of everything random.
        allow_unrelated: as in `measure_amplification`.

    Raises:
        PersonaProbeError: for an unknown finder, poles that do not belong together, held-out questions that the finders
            saw, if no layer can be chosen (no finder's direction replicates: give ``layer``) or it was not captured;
            and as in `measure_amplification`.
    """
    check_types(
        positive=(positive, Activations),
        negative=(negative, Activations),
        held_out=(held_out, [Activations]),
        captures=(captures, Captures),
        reference=(reference, Activations),
        finders=(finders, [str], None),
        others=(others, {str: Direction}, None),
        other_traits=(other_traits, {str: Direction}, None),
        layer=(layer, WHOLE, None),
        n_random=(n_random, WHOLE),
        seed=(seed, WHOLE),
    )
    if len(held_out) != 2:
        raise PersonaProbeError(f"held_out has {len(held_out)} parts; give two: (positive, negative)")
    poles, tested = Poles(positive, negative), Poles(*held_out)
    _check_unseen(poles, tested)
    allowed = [
        name for name, finder in FINDERS.items() if (poles.paired or not finder.paired) and _has_roles(name, poles)
    ]
    from_finders = {name: find_direction(positive, negative, name, seed=seed) for name in finders or allowed}
    directions = from_finders | dict(others or {})
    chosen = _choose(from_finders) if layer is None else layer
    if chosen not in captures.before.layers:
        raise PersonaProbeError(
            f"compare_finders: layer {chosen} is not in the captures, which hold "
            f"{', '.join(map(str, captures.before.layers))}; capture it, or give one of these as layer="
        )
    moved = measure_amplification(
        directions,
        captures,
        reference,
        other_traits=other_traits,
        shuffled_source=dict.fromkeys(from_finders, (positive, negative)),
        n_random=n_random,
        seed=seed,
        allow_unrelated=allow_unrelated,
    )
    values, truth = tested.stacked()
    groups = pd.concat([_groups(side) for side in held_out], ignore_index=True).to_numpy()
    after = moved.table[moved.table["model"] == "after"].set_index(["direction", "layer"])
    control = moved.table[moved.table["model"] == "control"].set_index(["direction", "layer"])
    rows = []
    for name, direction in directions.items():
        for number in captures.before.layers:
            scores = values[:, tested.layers.index(number)] @ direction.at(number)
            separation = auroc_estimate(scores, truth, groups=groups)
            key = (name, number)
            copied = (
                "shift_sd",
                "low_sd",
                "high_sd",
                "random_sd",
                "isotropic_sd",
                "specificity",
                "specificity_low",
                "specificity_high",
            )
            rows.append(
                {
                    "finder": name,
                    "layer": number,
                    "null": _is(direction, "null"),
                    "separation": separation.value,
                    "separation_low": separation.low,
                    "separation_high": separation.high,
                    **{column_name: after.loc[key, column_name] for column_name in (*copied, "p_corrected", "p_runs")},
                    "control_shift_sd": control.loc[key, "shift_sd"] if len(control) else np.nan,
                    "finding": moved.finding(number, name).value,
                    **{column_name: after.loc[key, column_name] for column_name in ("replication", *RELIABILITY)},
                    "n": separation.n,
                    "chosen": number == chosen,
                }
            )
    patterns = {name: _as_pattern(direction, poles) for name, direction in directions.items()}
    cosines = cosine_table(patterns, reference, n_random=n_random, seed=seed)
    return FinderComparison(pd.DataFrame(rows), cosines, directions, moved, chosen)


def _check_unseen(poles: Poles, tested: Poles) -> None:
    seen, asked = (
        {name for kind, name in questions_of(p.positive, p.negative) if kind != "row"} for p in (poles, tested)
    )
    if shared := sorted(seen & asked):
        raise PersonaProbeError(
            f"compare_finders: {len(shared)} of the held-out questions were seen by the finders (such as "
            f"{shared[0]!r}); hold whole questions out, better whole topics"
        )


def _has_roles(name: str, poles: Poles) -> bool:
    return name != "persona-axis" or "role" in poles.negative.table


def _groups(side: Activations) -> pd.Series:
    """The units of intervals: topics if dialogues name them, else questions."""
    asked = pd.Series([f"{kind} {name}" for kind, name in questions_of(side)])
    return side.table["group"].where(side.table["group"].notna(), asked).astype(str) if "group" in side.table else asked


def _choose(directions: Mapping[str, Direction]) -> int:
    found = [direction.replication for direction in directions.values() if direction.replication.checked]
    layers = sorted({layer for replication in found for layer in replication.layers_that_replicate})
    if not layers:
        raise PersonaProbeError(
            "compare_finders: there is no layer at which the direction of any finder replicates on halves of the "
            "questions; give more questions, or layer="
        )
    # A finder that could not be tested on halves has none.
    return max(layers, key=lambda layer: float(np.nanmean([one.at(layer)["held_out_auroc"] for one in found])))


def _is(direction: Direction, what: Literal["null", "discriminative"]) -> bool:
    """Whether its finder is a null or discriminative, by the card (its name in the comparison may be any)."""
    finder = FINDERS.get(str(direction.card.get("finder")))
    return finder is not None and bool(getattr(finder, what))


def _as_pattern(direction: Direction, poles: Poles) -> Direction:
    if not _is(direction, "discriminative"):
        return direction
    values, _ = poles.stacked()
    table = pd.concat([poles.positive.table, poles.negative.table], ignore_index=True)
    both = Activations(values, table, poles.layers, poles.negative.source)
    return direction.as_pattern(both)
