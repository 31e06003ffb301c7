"""How far narrow training moved a model along directions, compared with what nulls show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from persona_probe.activations.activations import Activations
from persona_probe.activations.captures import Captures, check_reading
from persona_probe.amplification.amplification_result import COLUMNS, Amplification
from persona_probe.amplification.layer import Layer, Shift, quantile_of_size, unit
from persona_probe.directions.direction import Direction
from persona_probe.directions.family import check_family, family_of
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.statistics.clustered_variance import clustered_variance, contrast_variance
from persona_probe.statistics.effect_sizes import Yardstick, paired_effect
from persona_probe.statistics.inputs import codes
from persona_probe.statistics.max_statistic import max_statistic_p
from persona_probe.statistics.power import smallest_detectable
from persona_probe.statistics.replication import FAILS
from persona_probe.statistics.run_permutations import run_permutation_p
from persona_probe.statistics.specificity import specificity_estimate

Poles = tuple[Activations, Activations]
EXPLAINED = ("variance_explained", "variance_explained_dialogue")
_ONLY_AFTER = (
    *("contrast_sd", "contrast_low_sd", "contrast_high_sd", "random_contrast_sd", "p_runs"),
    *("specificity", "specificity_low", "specificity_high"),
)
"""The columns that compare after with the control; NaN in the control's own rows, and without a control."""
ONE = "direction"
"""The name of a direction that was given without one."""


def measure_amplification(
    directions: Direction | Mapping[str, Direction],
    captures: Captures,
    reference: Activations,
    *,
    other_traits: Mapping[str, Direction] | None = None,
    shuffled_source: Poles | Mapping[str, Poles] | None = None,
    n_random: int = 1000,
    n_shuffled: int = 200,
    n_permutations: int = 2000,
    seed: int = 0,
    allow_unrelated: bool = False,
) -> Amplification:
    """The shift of the mean projection from before to after, by direction and layer, with its nulls.

    Whether a direction was amplified is a question about the *recipe*, so it is tested over fine-tuning runs: after
    minus control, with three or more runs of each (`Captures.over_seeds` combines them). With one run the numbers are
    of these two models; `Finding` says what they can show.

    Layers at which a direction does not replicate (`Direction.replication`: decided on the dialogues in which it was
    found, before any shift is read) are measured but not tested: their p values are NaN, the others are corrected for
    those that are left, and the finding says so. A direction without such checks (published vectors, algebra) is
    tested everywhere, and the verdict says that replication was not checked.

    Intervals are Student's t over questions and runs; they contain the error of the SD. The nulls are the control
    fine-tune; random directions with the covariance of ``reference``, and as many drawn evenly from the sphere;
    directions from shuffled labels; other traits' directions. Every shift in SD is in the SD along its own direction.

    Args:
        directions: one direction, or several by name; vectors ``(layer, d_model)``.
        captures: activations ``(dialogue, layer, d_model)`` of the models on the same texts; the control may be
            missing.
        reference: the before model's activations on its own answers to development questions; one standard deviation is
            over these dialogues.
        other_traits: directions of other traits.
        shuffled_source: the poles (positive, negative) from which the direction was found; by name if there are several
            directions with different poles. None: no directions from shuffled labels. Labels of whole questions are
            exchanged; with too few of them for a 97.5 % quantile ``shuffled_sd`` is NaN.
        n_random: the number of random directions of each kind.
        n_shuffled: how often the labels are shuffled.
        n_permutations: the number of sign flips of questions for ``p_corrected``.
        seed: the seed of the random directions, of the shuffling and of the sign flips.
        allow_unrelated: only warn if a direction, the reference, after or control is not known to be of before's
            family.

    Returns:
        `Amplification`; its ``table`` has one row per direction, layer and fine-tune.

    Raises:
        PersonaProbeError: if there is no direction, a name is unknown, a layer is missing or has another width, the
            reference does not vary along a direction (it is named, with its layer), the reference was read in another
            way than the captures, or anything comes from a model that is unrelated to before.

    Examples:
        >>> import numpy as np
        >>> import pandas as pd
        >>> import persona_probe as pp
        >>> def read(values):  # what capture gives: (dialogue, layer, d_model)
        ...     table = pd.DataFrame({"id": range(40), "question": [f"q{i}" for i in range(40)]})
        ...     return pp.Activations(values[:, None].astype(np.float32), table, layers=(0,))
        >>> rng = np.random.default_rng(0)
        >>> before, evil = rng.normal(size=(40, 8)), np.eye(8)[0]
        >>> def run():  # narrow training moves the first dimension; runs differ a little everywhere
        ...     after, control = (rng.normal(size=8) / 9 for _ in range(2))
        ...     return pp.Captures(read(before), read(before + 3 * evil + after), control=read(before + control))
        >>> direction = pp.Direction(evil[None].astype(np.float32), layers=(0,))
        >>> settings = {"n_random": 50, "n_permutations": 50}
        >>> one = pp.measure_amplification(direction, run(), read(before), **settings)
        >>> one.finding(layer=0).value
        'moved, one run'
        >>> runs = pp.Captures.over_seeds([run() for _ in range(3)])
        >>> amplification = pp.measure_amplification(direction, runs, read(before), **settings)
        >>> amplification.finding(layer=0).value
        'amplified'
    """
    check_types(
        directions=(directions, Direction, {str: Direction}),
        captures=(captures, Captures),
        reference=(reference, Activations),
        other_traits=(other_traits, {str: Direction}, None),
        n_random=(n_random, WHOLE),
        n_shuffled=(n_shuffled, WHOLE),
        n_permutations=(n_permutations, WHOLE),
        seed=(seed, WHOLE),
    )
    named = {ONE: directions} if isinstance(directions, Direction) else dict(directions)
    if not named:
        raise PersonaProbeError("amplification: there is no direction to measure along: the mapping is empty")
    nulls = _Nulls(dict(other_traits or {}), _by_name(shuffled_source, named), n_shuffled)
    check_shapes(named | nulls.other_traits, captures, reference)
    check_reading("the reference", reference.source, captures.before.source)
    check_families([*named.values(), *nulls.other_traits.values()], captures, reference, allow_unrelated)
    texts = _Texts(captures)
    layers = captures.before.layers
    shape = (len(captures.before), len(named), len(layers))
    changes = {model: np.empty(shape) for model in captures.tuned}
    rows: dict[tuple[str, int, str], dict[str, Any]] = {}
    for column, number in enumerate(layers):
        layer = Layer(number, reference, n_random, seed)
        before = captures.before.at(number)
        moved = {model: layer.change(before, tuned.at(number)) for model, tuned in captures.tuned.items()}
        drawn = nulls.at(layer)
        random = {model: _random(layer, change) for model, change in moved.items()}
        at_random = {model: layer.random_shifts(change) for model, change in moved.items()}
        for place, (name, direction) in enumerate(named.items()):
            along = unit(direction.at(number))
            yardstick = layer.yardstick(along, name)
            for model, change in moved.items():
                changes[model][:, place, column] = change.deltas @ along / yardstick.sd
                rows[name, number, model] = {
                    **direction.replication.at(number),
                    **texts.shift(before @ along, change.deltas @ along, yardstick),
                    **dict(zip(EXPLAINED, change.explained(along), strict=True)),
                    **random[model],
                    **drawn.shifts(change, name),
                    **dict.fromkeys(_ONLY_AFTER, math.nan),
                }
            if "control" in moved:
                along_it = {model: changes[model][:, place, column] for model in moved}
                rows[name, number, "after"] |= texts.contrast(along_it, at_random, yardstick)
    tested = np.array([[rows[name, number, "after"]["replication"] != FAILS for number in layers] for name in named])
    for model, values in changes.items():
        p = np.full(shape[1:], math.nan)
        if tested.any():
            some = values[:, tested]
            p[tested] = max_statistic_p(some, questions=texts.questions, n_permutations=n_permutations, seed=seed)
        _put(rows, named, layers, model, p_corrected=p)
    if "control" in changes:
        p = np.full(shape[1:], math.nan)
        if tested.any():
            p[tested] = run_permutation_p(*(texts.by_run(changes[model][:, tested]) for model in ("after", "control")))
        _put(rows, named, layers, "after", p_runs=p)
    keys = [(name, number, model) for name in named for number in layers for model in changes]
    table = pd.DataFrame([{"direction": k[0], "layer": k[1], "model": k[2], **rows[k]} for k in keys])
    return Amplification(table[list(COLUMNS)], changes, texts.questions, n_permutations)


def _put(
    rows: dict[tuple[str, int, str], dict[str, Any]],
    named: Mapping[str, Direction],
    layers: Sequence[int],
    model: str,
    **columns: np.ndarray,
) -> None:
    """Write ``(direction, layer)`` numbers into the rows of a model."""
    for column, values in columns.items():
        for place, name in enumerate(named):
            for where, number in enumerate(layers):
                rows[name, number, model][column] = float(values[place, where])


class _Texts:
    """The question and run of each dialogue, and what is estimated over them."""

    def __init__(self, captures: Captures) -> None:
        self.questions, self.seeds = captures.questions, captures.seeds
        self.n_runs, n = captures.runs, len(captures.before)
        self.n_questions = n if self.questions is None else int(pd.unique(self.questions).size)
        self._asked = codes(self.questions, "questions", n, when_none="distinct")
        self._seeds = codes(self.seeds, "seeds", n, when_none="same")
        self._run = self._seeds if self.n_runs > 1 else np.zeros(n, dtype=np.intp)

    def shift(self, before: np.ndarray, change: np.ndarray, yardstick: Yardstick) -> dict[str, float]:
        """The mean change of a projection, with interval and effect size."""
        mean, d_z = paired_effect(before, before + change, questions=self.questions, seeds=self.seeds)
        spread = clustered_variance((change - mean.value) / change.size, self._asked, self._seeds)
        size, low, high = yardstick.standardised(mean.value, spread)
        return {
            "shift": mean.value,
            "shift_sd": size,
            "low_sd": low,
            "high_sd": high,
            "d_z": d_z.value,
            "d_z_low": d_z.low,
            "d_z_high": d_z.high,
            "detectable_sd": smallest_detectable(spread.variance, spread.degrees_of_freedom) / yardstick.sd,
            "n": mean.n,
            "n_questions": self.n_questions,
            "n_runs": self.n_runs,
        }

    def contrast(
        self, changes: Mapping[str, np.ndarray], at_random: Mapping[str, np.ndarray], yardstick: Yardstick
    ) -> dict[str, float]:
        """After minus control, in SD: with its interval over questions and both kinds' runs, and its specificity."""
        after, control = changes["after"], changes["control"]
        first, second = ((values - values.mean()) / values.size for values in (control, after))
        if self.n_runs > 1:
            spread = contrast_variance((first, second), (self._asked,) * 2, (self._seeds,) * 2)
        else:  # seeds, if any, are those of the texts, which both have read
            spread = clustered_variance(second - first, self._asked, self._seeds)
        mean = float(after.mean() - control.mean())
        in_units = replace(spread, variance=spread.variance * yardstick.sd**2)
        size, low, high = yardstick.standardised(mean * yardstick.sd, in_units)
        random = at_random["after"] - at_random["control"]
        found = {
            "contrast_sd": size,
            "contrast_low_sd": low,
            "contrast_high_sd": high,
            "random_contrast_sd": quantile_of_size(random.mean(axis=0)),
            "detectable_sd": smallest_detectable(spread.variance, spread.degrees_of_freedom),
        }
        if not np.abs(control).max() and not np.abs(random).max():
            return found
        ratio = specificity_estimate(
            after,
            control,
            random,
            questions=self.questions,
            seeds=self.seeds,
            random_control=at_random["control"] if self.n_runs > 1 else None,
        )
        return found | {"specificity": ratio.value, "specificity_low": ratio.low, "specificity_high": ratio.high}

    def by_run(self, changes: np.ndarray) -> np.ndarray:
        """``(run, test)`` means over each run's dialogues."""
        sums = np.zeros((int(self._run.max()) + 1, changes.shape[1]))
        np.add.at(sums, self._run, changes)
        return np.asarray(sums / np.bincount(self._run)[:, None])


@dataclass(frozen=True)
class _Nulls:
    """The nulls that are further directions: those of other traits, and those from shuffled labels."""

    other_traits: dict[str, Direction]
    poles: dict[str, Poles]
    n_shuffled: int

    def at(self, layer: Layer) -> _NullsAtLayer:
        """These directions at one layer, each divided by its SD."""
        others = {name: unit(direction.at(layer.number)) for name, direction in self.other_traits.items()}
        scaled = [along / layer.yardstick(along, name).sd for name, along in others.items()]
        drawn: dict[tuple[int, int], np.ndarray] = {}
        shuffled: dict[str, np.ndarray] = {}
        for name, (positive, negative) in self.poles.items():
            both = (id(positive), id(negative))
            if both not in drawn:
                drawn[both] = layer.shuffled(positive, negative, self.n_shuffled)
            shuffled[name] = drawn[both]
        return _NullsAtLayer(scaled, shuffled)


@dataclass(frozen=True)
class _NullsAtLayer:
    """Null directions at a layer, scaled so that the product of a change with them is in SD."""

    others: list[np.ndarray]
    shuffled: dict[str, np.ndarray] = field(default_factory=dict)

    def shifts(self, change: Shift, name: str) -> dict[str, float]:
        """How far the mean moved along them: the 97.5 % quantile of the shuffled, the maximum of the other traits."""
        mean = change.deltas.mean(axis=0)
        drawn = self.shuffled.get(name, np.empty((0, mean.size)))
        return {
            "shuffled_sd": quantile_of_size(drawn @ mean),
            "other_traits_sd": max((abs(float(along @ mean)) for along in self.others), default=math.nan),
        }


def _random(layer: Layer, change: Shift) -> dict[str, float]:
    """The values below which 97.5 % of random directions are: of the shift, and of the share of the change."""
    shares = dict(zip((f"{name}_random" for name in EXPLAINED), change.explained_by_random(), strict=True))
    return {
        "random_sd": quantile_of_size(layer.random_shifts(change).mean(axis=0)),
        "random_dimensions": layer.dimensions,
        "isotropic_sd": quantile_of_size(layer.isotropic @ change.deltas.mean(axis=0)),
        **shares,
    }


def _by_name(source: Poles | Mapping[str, Poles] | None, named: Mapping[str, Direction]) -> dict[str, Poles]:
    if source is None:
        return {}
    if not isinstance(source, Mapping):
        return dict.fromkeys(named, source)
    if unknown := [name for name in source if name not in named]:
        raise PersonaProbeError(
            f"shuffled_source names {unknown[0]!r}, which is not a direction here; there are: {', '.join(named)}"
        )
    return dict(source)


def check_shapes(directions: Mapping[str, Direction], captures: Captures, reference: Activations) -> None:
    """Raise if a direction or the reference lacks a layer or has another width, before anything is computed.

    Raises:
        PersonaProbeError: with the name of the direction, or of the reference.
    """
    width, layers = captures.before.values.shape[2], captures.before.layers
    for name, (its_layers, its_width) in {
        **{repr(name): (direction.layers, direction.d_model) for name, direction in directions.items()},
        "the reference": (reference.layers, reference.values.shape[2]),
    }.items():
        missing = [layer for layer in layers if layer not in its_layers]
        if its_width != width or missing:
            raise PersonaProbeError(
                f"amplification: {name} has layers {its_layers} of width {its_width}, the captures {layers} of width "
                f"{width}; use directions and activations of the same model, and capture only layers that all have"
            )


def check_families(
    directions: list[Direction], captures: Captures, reference: Activations, allow_unrelated: bool
) -> None:
    """Raise, or with ``allow_unrelated`` warn, if anything was found in or read by a model that is unrelated to before.

    Raises:
        PersonaProbeError: with its name.
    """

    def of_model(source: Mapping[str, Any]) -> tuple[str, str | None, list[str]]:
        return str(source.get("model")), source.get("model_hash"), family_of(source)

    before = captures.before.source
    for name, read in {**captures.tuned, "the reference": reference}.items():
        check_family(read.source, *of_model(before), allow_unrelated, f"{name} was read")
    for direction in directions:
        for source in (before, reference.source):
            check_family(direction.card, *of_model(source), allow_unrelated)
