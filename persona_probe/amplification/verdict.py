"""What the numbers of one direction at one layer show, in a word and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from persona_probe.statistics.estimate import Estimate

Row = Mapping[str, Any]
ALPHA = 0.05
# Cohen 1988, chapter 2: below this many SD a difference is less than "small"; many questions detect even less.
SMALL = 0.2
TUNED = "the benign control moves along it too, so this direction tracks that the model was fine-tuned, not the trait"
NOTHING = "so this direction is nothing special"
DRAWN = {"random_sd": "random directions", "isotropic_sd": "isotropic ones", "shuffled_sd": "shuffled labels"}
"""The names of the nulls of which there are many draws."""


class Finding(Enum):
    """What a shift shows.

    ``AMPLIFIED`` and ``REDUCED`` (the projection rose, or fell): different from zero by the interval and by the
    corrected p, with a specificity whose interval lies above 1, and larger than the shifts of the control and along
    random (covariance-matched and isotropic) and label-shuffled directions. ``SHARED``: amplified in that sense, but
    another trait's direction moved at least as much, so it is not this trait alone. ``NULLS``: different from zero, but
    not larger than the control's shift or than along those directions. ``NO_CONTROL``: larger than the nulls that there
    are, but without a control. ``NEGLIGIBLE``: larger than its nulls, but less than 0.2 SD. ``UNDETECTED``: not
    significantly different from zero. ``UNTESTED``: too few questions for a test.

    All this rests on the spread between questions, and between fine-tuning runs if there are several
    (`Captures.over_seeds`). Two runs of one benign fine-tune differ by more than the questions' spread (in Persona
    World by up to 0.4 SD, a "specificity" of 4), so the sentence says if there is only a single run.
    """

    AMPLIFIED = "amplified"
    REDUCED = "reduced"
    SHARED = "amplified, but other traits as much"
    NULLS = "moved, but no more than its nulls"
    NO_CONTROL = "moved; no control"
    NEGLIGIBLE = "less than a small effect"
    UNDETECTED = "not told apart from zero"
    UNTESTED = "too few questions to tell"


def finding(after: Row, control: Row | None, least_p: float) -> Finding:
    """The finding of a row of ``after``, compared with its nulls.

    Args:
        after: the row of the narrow fine-tune.
        control: the row of the control, or None if there is none.
        least_p: the smallest ``p_corrected`` that is possible with so many questions.
    """
    if math.isnan(after["low_sd"]) or least_p > ALPHA:
        return Finding.UNTESTED
    if after["low_sd"] <= 0.0 <= after["high_sd"] or after["p_corrected"] > ALPHA:
        return Finding.UNDETECTED
    if _reason(after, control) is not None:
        return Finding.NULLS
    if abs(after["shift_sd"]) < SMALL:
        return Finding.NEGLIGIBLE
    if control is None:
        return Finding.NO_CONTROL
    if after["shift_sd"] < 0:
        return Finding.REDUCED
    return Finding.SHARED if _others_move_as_much(after) else Finding.AMPLIFIED


def sentence(after: Row, control: Row | None, least_p: float) -> str:
    """The finding in a sentence, with the numbers on which it rests; arguments as in `finding`."""
    outcome = finding(after, control, least_p)
    where = f"at layer {after['layer']}"
    moved = f"{_with_interval(after['shift_sd'], after['low_sd'], after['high_sd'])} SD"
    nulls = "; ".join(_nulls(after, control, shared=outcome is Finding.SHARED))
    missing = "there is no control, so this cannot be distinguished from what any fine-tuning does"
    once = "; one fine-tuning run, so the intervals do not include how runs differ" if after["n_runs"] == 1 else ""
    match outcome:
        case Finding.UNTESTED:
            questions = f"{after['n_questions']} question{'s' * (after['n_questions'] != 1)}"
            return f"shift of {moved} {where}: {questions} cannot show a difference from zero; give more; {nulls}"
        case Finding.UNDETECTED:
            could = f"the sample could have detected {number(after['detectable_sd'])} SD in one uncorrected test"
            # With several runs the interval is the wider one: p is over questions alone, and may be small.
            p = f" (corrected p = {after['p_corrected']:.2g})" if after["p_corrected"] > ALPHA else ""
            return f"not amplified {where}: {moved} is not significantly different from zero{p}; {could}"
        case Finding.NEGLIGIBLE:
            return f"not amplified {where}: {moved} is less than a small effect ({SMALL} SD); {nulls}"
        case Finding.NULLS:
            return f"moved {moved} {where}, but no more than its nulls: {_reason(after, control)}; {nulls}"
        case Finding.NO_CONTROL:
            return f"moved {moved} {where}; {nulls}; {missing}{once}"
        case Finding.SHARED:
            return f"amplified {moved} {where}, but not this trait alone; {nulls}{once}"
        case Finding.AMPLIFIED | Finding.REDUCED:
            start = "amplified" if outcome is Finding.AMPLIFIED else "not amplified but reduced:"
            return f"{start} {moved} {where}; {nulls}{once}"


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
            parts.append(f"{what} {number(after[column])} (97.5 %)")
    if not math.isnan(after["other_traits_sd"]):
        others = f"other traits' directions up to {number(after['other_traits_sd'])}"
        parts.append(
            f"{others}, so it is not this trait alone" if _others_move_as_much(after) and not shared else others
        )
    if not math.isnan(after["specificity"]):
        ends = after["specificity_low"], after["specificity_high"]
        parts.append(f"specificity {_with_interval(after['specificity'], *ends)}")
    return parts


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
