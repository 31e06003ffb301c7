"""The difference of two means over the same questions, with an interval over questions and fine-tuning runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from persona_probe.errors import PersonaProbeError
from persona_probe.statistics.clustered_variance import contrast_variance
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.inputs import check_level, codes, real_array


@dataclass(frozen=True)
class Values:
    """The rows of one of two means.

    Attributes:
        values: ``(row,)`` finite numbers.
        questions: ``(row,)`` which question was asked, in the same words in both means.
        seeds: ``(row,)`` which fine-tuning run, of this mean alone; None: one run.
    """

    values: npt.ArrayLike
    questions: npt.ArrayLike
    seeds: npt.ArrayLike | None = None


def mean_difference(first: Values, second: Values, *, level: float = 0.95) -> Estimate:
    """The second mean minus the first, paired over questions, with Student's t interval.

    The two share questions, but not runs: run 0 of the one and run 0 of the other are two runs. The variance is
    `contrast_variance`; with one run each that is the paired t over questions.

    Args:
        first: the rows of the first mean, such as before.
        second: those of the second, such as after.
        level: nominal coverage.

    Returns:
        The difference, in the units of the values; ``n`` is the number of questions. From one question and one run each
        no spread can be estimated: the ends are then NaN.

    Raises:
        PersonaProbeError: if a side is empty or not finite, a row names no question, or the two do not have the same
            questions.

    Examples:
        >>> asked = ["a", "b", "c", "d"]
        >>> print(mean_difference(Values([0.0, 1.0, 2.0, 1.0], asked), Values([1.0, 3.0, 4.0, 2.0], asked)))
        1.50 [0.58, 2.42] (n=4)
    """
    check_level(level)
    sides = [real_array(side.values, name, ("row",)) for side, name in ((first, "first"), (second, "second"))]
    sizes = [side.size for side in sides]
    asked = codes(
        np.concatenate([np.asarray(side.questions, dtype=object) for side in (first, second)]),
        "questions",
        sum(sizes),
        when_none="same",
    )
    questions = asked[: sizes[0]], asked[sizes[0] :]
    only = set(questions[0].tolist()) ^ set(questions[1].tolist())
    if only:
        raise PersonaProbeError(
            f"{len(only)} questions were asked in one of the two only; a paired difference needs the same questions in "
            "both"
        )
    runs = [
        codes(side.seeds, "seeds", size, when_none="same") for side, size in zip((first, second), sizes, strict=True)
    ]
    means = [float(side.mean()) for side in sides]
    shares = [(side - mean) / side.size for side, mean in zip(sides, means, strict=True)]
    spread = contrast_variance((shares[0], shares[1]), questions, (runs[0], runs[1]))
    counts = " + ".join(str(int(run.max()) + 1) for run in runs)
    change = means[1] - means[0]
    units = f"{spread.questions} question{'s' * (spread.questions != 1)} and {counts} runs"
    if math.isnan(spread.variance):
        return Estimate(change, math.nan, math.nan, spread.questions, f"no interval from {units}", level)
    half = spread.t_quantile(level) * math.sqrt(spread.variance)
    method = f"{'' if counts == '1 + 1' else 'two-way '}t over {units}"
    return Estimate(change, change - half, change + half, spread.questions, method, level)
