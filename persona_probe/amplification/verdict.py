"""What the numbers of one direction at one layer show, in a word and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from persona_probe.directions.replication import HOW_TO_CHECK
from persona_probe.statistics.estimate import Estimate
from persona_probe.statistics.replication import FAILS, UNCHECKED, reliability

Row = Mapping[str, Any]
ALPHA = 0.05
MARGIN = 0.2
"""A contrast within so many SD of zero is no amplification: less than a "small" effect (Cohen 1988, chapter 2)."""
ENOUGH_RUNS = 3
"""Runs of each kind: with three there are 20 arrangements, of which one may come out on top."""
TUNED = "the benign control moves along it too, so this direction tracks that the model was fine-tuned, not the trait"
NOTHING = "so this direction is nothing special"
DRAWN = {"random_sd": "random directions", "isotropic_sd": "isotropic ones", "shuffled_sd": "shuffled labels"}
"""The names of the nulls of which there are many draws."""


class Finding(Enum):
    """What a shift shows.

    * ``NO_DIRECTION``: the direction does not replicate at this layer (`persona_probe.statistics.replication.gate`),
      which is decided on the dialogues in which it was found, before any shift is read. Then no shift shows anything.

    What a *recipe* does is shown over fine-tuning runs:

    * ``AMPLIFIED`` and ``REDUCED``: the projection rose (fell), and after's runs lie above (below) the control's, by
      the permutation of runs, corrected for all layers and directions, and by the interval of after minus control over
      questions and runs. Further it is larger than its nulls: a specificity whose interval lies above 1, and more than
      along random (covariance-matched and isotropic) and label-shuffled directions. A false ``AMPLIFIED`` anywhere has
      a chance of at most 5 %, a false ``REDUCED`` too.
    * ``SHARED``: amplified in that sense, but another trait's direction moved at least as much, so it is not this trait
      alone. (The more traits are given, the more often.)
    * ``NOT_AMPLIFIED``: the whole interval of after minus control lies within 0.2 SD of zero (equivalence: Schuirmann
      1987, "A comparison of the two one-sided tests procedure and the power approach", J Pharmacokinet Biopharm 15).
    * ``UNDECIDED``: none of these. That a change is not significant does not show that there is none.

    What *these models* do, without a claim about the recipe:

    * ``ONE_RUN``, ``FEW_RUNS``: larger than its nulls, but from one run (from two), whose differences from other runs
      are not known. Two runs of one benign fine-tune differ by more than questions' intervals allow for (in Persona
      World by up to 0.4 SD), and most at the layer that looks best.
    * ``NULLS``: different from zero, but not larger than the control's shift or than along null directions.
    * ``NO_CONTROL``: larger than the nulls that there are, but without a control.
    * ``UNTESTED``: too few questions for a test.
    """

    NO_DIRECTION = "the direction does not replicate"
    AMPLIFIED = "amplified"
    REDUCED = "reduced"
    SHARED = "amplified, but other traits as much"
    NOT_AMPLIFIED = "not amplified"
    UNDECIDED = "undecided"
    ONE_RUN = "moved, one run"
    FEW_RUNS = "moved, too few runs"
    NULLS = "moved, but no more than its nulls"
    NO_CONTROL = "moved; no control"
    UNTESTED = "too few questions to tell"


@dataclass(frozen=True)
class Least:
    """The smallest p values that are possible.

    Attributes:
        questions: of ``p_corrected``, with so many questions.
        runs: of ``p_runs``, with so many runs.
    """

    questions: float
    runs: float


def finding(after: Row, control: Row | None, least: Least) -> Finding:
    """The finding of a row of ``after``, compared with its nulls.

    Args:
        after: the row of the narrow fine-tune.
        control: the row of the control, or None if there is none.
        least: the smallest p values that are possible with so many questions and runs.
    """
    if after["replication"] == FAILS:
        return Finding.NO_DIRECTION
    if math.isnan(after["low_sd"]) or least.questions > ALPHA:
        return Finding.UNTESTED
    enough = least.runs <= ALPHA
    if control is not None and enough and _within_margin(after):
        return Finding.NOT_AMPLIFIED
    if not _moved(after):
        return Finding.UNDECIDED
    if _reason(after, control) is not None:
        return Finding.NULLS
    if abs(after["shift_sd"]) < MARGIN:
        return Finding.UNDECIDED
    if control is None:
        return Finding.NO_CONTROL
    if not enough:
        return Finding.ONE_RUN if after["n_runs"] == 1 else Finding.FEW_RUNS
    if after["p_runs"] > ALPHA or after["contrast_low_sd"] <= 0.0 <= after["contrast_high_sd"]:
        return Finding.UNDECIDED
    if after["shift_sd"] < 0:
        return Finding.REDUCED
    return Finding.SHARED if _others_move_as_much(after) else Finding.AMPLIFIED


def sentence(after: Row, control: Row | None, least: Least) -> str:
    """The finding in a sentence, with the numbers on which it rests; arguments as in `finding`."""
    return f"{_finding_in_words(after, control, least)}; {_replication(after)}"


def _replication(after: Row) -> str:
    """How far the direction itself is to be trusted."""
    if after["replication"] == UNCHECKED:
        return f"replication not checked ({HOW_TO_CHECK})"
    return reliability(after)


def _finding_in_words(after: Row, control: Row | None, least: Least) -> str:
    outcome = finding(after, control, least)
    where = f"at layer {after['layer']}"
    moved = f"{_with_interval(after['shift_sd'], after['low_sd'], after['high_sd'])} SD"
    nulls = "; ".join(_nulls(after, control, shared=outcome is Finding.SHARED))
    match outcome:
        case Finding.NO_DIRECTION:
            return f"the direction does not replicate {where}, so that a shift along it ({moved}) shows nothing"
        case Finding.UNTESTED:
            questions = f"{after['n_questions']} question{'s' * (after['n_questions'] != 1)}"
            return f"shift of {moved} {where}: {questions} cannot show a difference from zero; give more; {nulls}"
        case Finding.UNDECIDED:
            return f"undecided {where}: {_why_undecided(after, control, least, moved)}"
        case Finding.NOT_AMPLIFIED:
            return f"not amplified {where}: {_contrast(after)}, all of it within {MARGIN} SD of zero; {_runs(after)}"
        case Finding.NULLS:
            return f"moved {moved} {where}, but no more than its nulls: {_reason(after, control)}; {nulls}"
        case Finding.NO_CONTROL:
            missing = "there is no control, so this cannot be distinguished from what any fine-tuning does"
            return f"moved {moved} {where}; {nulls}; {missing}"
        case Finding.ONE_RUN | Finding.FEW_RUNS:
            count = "one run" if after["n_runs"] == 1 else f"{after['n_runs']} runs"
            return f"moved {moved} {where}, {count}; {nulls}; {_missing_runs()}"
        case _:
            start = {Finding.AMPLIFIED: "amplified", Finding.SHARED: "amplified"}.get(outcome, "reduced:")
            alone = ", but not this trait alone" if outcome is Finding.SHARED else ""
            return f"{start} {moved} {where}{alone}; {_contrast(after)}; {_runs(after)}; {nulls}"


def _moved(after: Row) -> bool:
    """Whether these runs changed at all, over questions."""
    return bool((after["low_sd"] > 0.0 or after["high_sd"] < 0.0) and after["p_corrected"] <= ALPHA)


def _within_margin(after: Row) -> bool:
    return bool(after["contrast_low_sd"] > -MARGIN and after["contrast_high_sd"] < MARGIN)


def _why_undecided(after: Row, control: Row | None, least: Least, moved: str) -> str:
    """What is lacking, and what a design like this one would see."""
    could = f"the interval of such a design leaves out zero at {number(after['detectable_sd'])} SD with 80 % assurance"
    compared = "" if control is None else f"; {_contrast(after)}"
    if control is not None and least.runs <= ALPHA:
        compared += f"; {_runs(after)}"
    if not _moved(after):
        p = f" (corrected p = {after['p_corrected']:.2g})" if after["p_corrected"] > ALPHA else ""
        return f"{moved} is not significantly different from zero{p}{compared}; {could}"
    if abs(after["shift_sd"]) < MARGIN:
        return f"{moved} is less than a small effect ({MARGIN} SD){compared}; {could}"
    return f"{moved}, but after's runs are not clearly apart from the control's{compared}; {could}"


def _contrast(after: Row) -> str:
    ends = after["contrast_low_sd"], after["contrast_high_sd"]
    return f"after minus control {_with_interval(after['contrast_sd'], *ends)} SD"


def _runs(after: Row) -> str:
    return f"{after['n_runs']} runs of each, p = {after['p_runs']:.2g} by permutation of runs"


def _missing_runs() -> str:
    return (
        "how runs differ is not known, so this is about these models; for a claim about the recipe, train at least "
        f"{ENOUGH_RUNS} runs of after and {ENOUGH_RUNS} of the control"
    )


def number(value: float) -> str:
    """A number with two decimals below one, else one or none; small numbers get more, so that none reads as zero."""
    size = abs(value)
    if size >= 9.95:
        return f"{value:.0f}"
    if size >= 0.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.01 or size == 0 else f"{value:.1g}"


def _reason(after: Row, control: Row | None) -> str | None:
    """Why a shift is no more than its nulls; None if it is more."""
    size = abs(after["shift_sd"])
    if control is not None:
        benign = abs(control["shift_sd"])
        if benign >= size or after["specificity_low"] <= 1.0:
            return TUNED if benign >= after["random_sd"] else f"random directions move nearly as much, {NOTHING}"
    if size <= after["random_sd"]:
        return f"random directions move as much, {NOTHING}"
    if size <= after["isotropic_sd"]:
        return f"directions drawn evenly from the sphere move as much, {NOTHING}"
    if size <= after["shuffled_sd"]:
        return "directions from shuffled labels move as much, so the labels are not the reason"
    return None


def _nulls(after: Row, control: Row | None, shared: bool) -> list[str]:
    """The numbers of all nulls that were measured; if the sentence says ``shared``, this does not say so again."""
    parts = [] if control is None else [f"the benign control moves {number(control['shift_sd'])}"]
    for column, what in DRAWN.items():
        if not math.isnan(after[column]):
            parts.append(f"{what} {number(after[column])} (97.5 %{_dimensions(after, column)})")
    if not math.isnan(after["other_traits_sd"]):
        others = f"other traits' directions up to {number(after['other_traits_sd'])}"
        parts.append(
            f"{others}, so it is not this trait alone" if _others_move_as_much(after) and not shared else others
        )
    if not math.isnan(after["specificity"]):
        ends = after["specificity_low"], after["specificity_high"]
        parts.append(f"specificity {_with_interval(after['specificity'], *ends)}")
    return parts


def _dimensions(after: Row, column: str) -> str:
    """What the matched random directions lack if a few dimensions hold most of the variance."""
    few = column == "random_sd" and after["random_dimensions"] < 3.0
    return f"; they fill {after['random_dimensions']:.1f} dimensions" if few else ""


def _others_move_as_much(after: Row) -> bool:
    """Whether another trait's direction moved at least as much; False if none was measured."""
    return bool(after["other_traits_sd"] >= abs(after["shift_sd"]))


def _with_interval(value: float, low: float, high: float) -> str:
    """A number with its interval; the width decides the number of digits, unless the interval has no end."""
    if math.isnan(low):
        return f"{number(value)} [no interval]"
    if math.isinf(high):
        return f"{number(value)} [{number(low)}, ∞]"
    return str(Estimate(value, low, high, n=0, method="")).removesuffix(" (n=0)")
