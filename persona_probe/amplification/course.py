"""Amplification along training: the same measurement at every snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import Captures
from persona_probe.activations.capturing import capture_together
from persona_probe.amplification.amplification import Poles, measure_amplification
from persona_probe.amplification.amplification_result import Amplification
from persona_probe.amplification.course_result import AmplificationCourse
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.directions.direction import Direction
from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading.snapshots import Snapshots
from persona_probe.models.model import Model
from persona_probe.statistics.max_statistic import max_statistic_p
from persona_probe.statistics.replication import FAILS


def track_snapshots(
    before: Model,
    snapshots: Snapshots | Iterable[Model],
    directions: Direction | Mapping[str, Direction],
    dialogues: Sequence[Dialogue],
    reference: Activations,
    *,
    control: Model | None = None,
    steps: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    span: str = "generation",
    layers: int | Sequence[int] | str = "all",
    other_traits: Mapping[str, Direction] | None = None,
    shuffled_source: Poles | Mapping[str, Poles] | None = None,
    n_random: int = 1000,
    n_shuffled: int = 200,
    n_permutations: int = 2000,
    seed: int = 0,
    progress: bool = False,
    allow_unrelated: bool = False,
) -> AmplificationCourse:
    """The amplification from ``before`` to each snapshot of training; see `measure_amplification`.

    Only one snapshot's activations are in memory at a time; of earlier snapshots only projections are. Each snapshot
    reads together with ``before``, so that the same tokens count (attention sinks are those of ``before``): two forward
    passes per text and snapshot.

    Args:
        before: the model before training.
        snapshots: the snapshots in the order of training; with `load_snapshots` one at a time is in memory.
        directions: one direction, or several by name; vectors ``(layer, d_model)``.
        dialogues: the texts that all models read, usually ``before``'s own answers to questions on which no layer was
            chosen.
        reference: the before model's activations on its own answers, over which one standard deviation is computed.
        control: the end of a matched benign fine-tune, which is the null of every snapshot.
        steps: the training step of each snapshot; None: their positions, from 0.
        names: the name of each snapshot; None: the models' names.
        span: which tokens are read.
        layers: which layers are read.
        other_traits: directions of other traits.
        shuffled_source: the poles from which the direction was found.
        n_random: the number of random directions of each kind.
        n_shuffled: how often the labels are shuffled.
        n_permutations: the number of sign flips.
        seed: the seed of all draws; every snapshot is compared with the same null directions.
        progress: show a progress bar for each snapshot's reading.
        allow_unrelated: as in `measure_amplification`; for snapshots that do not say (`Model.ancestors`) that they were
            made from ``before``.

    Returns:
        `AmplificationCourse`.

    Raises:
        PersonaProbeError: if there is no snapshot, or there are not as many steps or names as snapshots; and as in
            `measure_amplification` and `capture_together`.
    """
    if isinstance(snapshots, Sized):
        _check_counts(len(snapshots), steps, names)

    def read(model: Model) -> list[Activations]:
        return capture_together((before, model), dialogues, span, layers=layers, progress=progress)

    benign = None if control is None else read(control)[1]
    measured: list[Amplification] = []
    model_names: list[str] = []
    for model in snapshots:
        base, after = read(model)
        measured.append(
            measure_amplification(
                directions,
                Captures(base, after, benign),
                reference,
                other_traits=other_traits,
                shuffled_source=shuffled_source,
                n_random=n_random,
                n_shuffled=n_shuffled,
                n_permutations=n_permutations,
                seed=seed,
                allow_unrelated=allow_unrelated,
            )
        )
        model_names.append(model.name)
    # The length of an iterator is known only now.
    _check_counts(len(measured), steps, names)
    numbers = range(len(measured)) if steps is None else steps
    corrected = _together(measured, n_permutations, seed)
    tables = []
    for step, name, amplification, p in zip(numbers, names or model_names, measured, corrected, strict=True):
        table = amplification.table.copy()
        table.loc[table["model"] == "after", "p_corrected"] = p
        tables.append(table.assign(step=step, name=name)[["step", "name", *table.columns]])
    return AmplificationCourse(pd.concat(tables, ignore_index=True))


def _check_counts(snapshots: int, steps: Sequence[int] | None, names: Sequence[str] | None) -> None:
    """Raise if there are no snapshots, or not one step or one name for each."""
    if not snapshots:
        raise PersonaProbeError("track_snapshots: there are no snapshots to track: the list is empty")
    for what, given in (("steps", steps), ("names", names)):
        if given is not None and len(given) != snapshots:
            raise PersonaProbeError(
                f"track_snapshots: {len(given)} {what} for {snapshots} snapshots; give one for each"
            )


def _together(measured: Sequence[Amplification], n_permutations: int, seed: int) -> np.ndarray:
    """``(snapshot, test)`` p values of the directions and layers of every snapshot, corrected for all of them.

    Where a direction does not replicate, it is not tested (NaN).
    """
    changes = np.stack([amplification.changes["after"] for amplification in measured], axis=1)
    flat = changes.reshape(*changes.shape[:2], -1)
    table = measured[0].table
    tested = (table.loc[table["model"] == "after", "replication"] != FAILS).to_numpy()
    p = np.full(flat.shape[1:], np.nan)
    if tested.any():
        some = flat[:, :, tested].reshape(len(flat), -1)
        of_tested = max_statistic_p(some, questions=measured[0].questions, n_permutations=n_permutations, seed=seed)
        p[:, tested] = of_tested.reshape(len(measured), -1)
    return p
