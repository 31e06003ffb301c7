"""What one direction's numbers at one layer come to, in a word and in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

Row = Mapping[str, Any]
ALPHA = 0.05
# Cohen 1988, chapter 2: below this many SD a difference is less than "small"; with many questions, anything is detected
SMALL = 0.2
TUNED = "the benign control moves along it too, so this direction tracks that the model was fine-tuned, not the trait"
NOTHING = "so this direction is nothing special"


class Finding(Enum):
    """What can be said of a shift.

    ``AMPLIFIED`` and ``REDUCED`` (the projection rose, fell): told apart from zero by the interval and by the corrected
    p, with a specificity whose interval lies above 1, and larger than the control's and the random and label-shuffled
    directions' own shifts. ``NULLS``: told apart from zero, but no larger than one of those. ``NO_CONTROL``: larger
    than its nulls as far as there are any, but without a control. ``NEGLIGIBLE``: larger than its nulls, but less than
    0.2 SD. ``UNDETECTED``: not told apart from zero. ``UNTESTED``: too few questions to tell.

    All rests on the spread between questions, and between fine-tuning runs where there are several
    (`Captures.over_seeds`). Two runs of one benign fine-tune differ by more than the questions' spread (in Persona
    World by up to 0.4 SD, a "specificity" of 4), so of a single run the line says that it is one.
    """

    AMPLIFIED = "amplified"
    REDUCED = "reduced"
    NULLS = "moved, but no more than its nulls"
    NO_CONTROL = "moved; no control"
    NEGLIGIBLE = "less than a small effect"
    UNDETECTED = "not told apart from zero"
    UNTESTED = "too few questions to tell"


def finding(after: Row, control: Row | None, least_p: float) -> Finding:
    """Weigh a row of ``after`` against its nulls.

    Args:
        after: the row of the narrow fine-tune.
        control: that of the control; None if there is none.
        least_p: the smallest ``p_corrected`` that so many questions can give.
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
    return Finding.AMPLIFIED if after["shift_sd"] > 0 else Finding.REDUCED


def sentence(after: Row, control: Row | None, least_p: float) -> str:
    """The finding in a line, with the numbers that it rests on; arguments as in `finding`."""
    found = finding(after, control, least_p)
    where = f"at layer {after['layer']}"
    moved = f"{number(after['shift_sd'])} SD {_interval(after, 'low_sd', 'high_sd')}"
    beside = "; ".join(_beside(after, control))
    missing = "the control is missing, so this cannot be told from what any fine-tuning does"
    once = "; one fine-tuning run, so the intervals do not hold how runs differ" if after["n_runs"] == 1 else ""
    match found:
        case Finding.UNTESTED:
            questions = f"{after['n_questions']} question{'s' * (after['n_questions'] != 1)}"
            return f"shift of {moved} {where}: {questions} cannot tell it apart from zero; give more; {beside}"
        case Finding.UNDETECTED:
            could = f"the sample could have seen {number(after['detectable_sd'])} SD"
            # between runs the interval is the wider one; p is over questions alone, and may be small beside it
            p = f" (corrected p = {after['p_corrected']:.2g})" if after["p_corrected"] > ALPHA else ""
            return f"not amplified {where}: {moved} is not told apart from zero{p}; {could}"
        case Finding.NEGLIGIBLE:
            return f"not amplified {where}: {moved} is less than a small effect ({SMALL} SD); {beside}"
        case Finding.NULLS:
            return f"moved {moved} {where}, but no more than its nulls: {_reason(after, control)}; {beside}"
        case Finding.NO_CONTROL:
            return f"moved {moved} {where}; {beside}; {missing}{once}"
        case Finding.AMPLIFIED | Finding.REDUCED:
            start = "amplified" if found is Finding.AMPLIFIED else "not amplified but reduced:"
            return f"{start} {moved} {where}; {beside}{once}"


def number(value: float) -> str:
    """Two digits behind the point below one, else one; small values get more, so that none reads as zero."""
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
        own = abs(control["shift_sd"])
        if own >= size or after["specificity_low"] <= 1.0:
            return TUNED if own >= after["random_sd"] else f"random directions move nearly as much, {NOTHING}"
    if size <= after["random_sd"]:
        return f"random directions move as much, {NOTHING}"
    if size <= after["shuffled_sd"]:
        return "directions from shuffled labels move as much, so the labels did not make it"
    return None


def _beside(after: Row, control: Row | None) -> list[str]:
    """What the nulls show, each as far as it was measured."""
    parts = [] if control is None else [f"the benign control moves {number(control['shift_sd'])}"]
    parts.append(f"random directions {number(after['random_sd'])} (97.5 %)")
    if not math.isnan(after["shuffled_sd"]):
        parts.append(f"shuffled labels {number(after['shuffled_sd'])} (97.5 %)")
    if not math.isnan(after["other_traits_sd"]):
        others = f"other traits' directions up to {number(after['other_traits_sd'])}"
        more = after["other_traits_sd"] >= abs(after["shift_sd"])
        parts.append(f"{others}, so it is not this trait alone" if more else others)
    if not math.isnan(after["specificity"]):
        ratio = number(after["specificity"])
        parts.append(f"specificity {ratio} {_interval(after, 'specificity_low', 'specificity_high')}")
    return parts


def _interval(row: Row, low: str, high: str) -> str:
    if math.isnan(row[low]):
        return "[no interval]"
    return f"[{number(row[low])}, {'∞' if math.isinf(row[high]) else number(row[high])}]"
