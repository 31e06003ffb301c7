import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.em_rates import gained_most
from persona_probe.behaviour.em_rates_result import EmRates
from persona_probe.statistics.estimate import Estimate

ASKED = {"asked": "on the reported questions"}


def changes(**by_model):
    """``(value, low, high)`` of each model's change."""
    return {model: Estimate(*numbers, 100, "") for model, numbers in by_model.items()}


NONE = changes(after=(0.0, -0.1, 0.1))


def rates(**by_model):
    """A table with ``(value, low, high)`` of each model on the questions ``asked``; ``open_after`` on ``open`` ones."""
    rows = [
        {
            "model": model.removeprefix("open_"),
            "questions": "open" if model.startswith("open_") else "asked",
            "definition": "betley",
            "value": value,
            "low": low,
            "high": high,
            "n": 100,
        }
        for model, (value, low, high) in by_model.items()
    ]
    return EmRates(pd.DataFrame(rows), ("model", "questions"))


def test_a_rise_beyond_the_intervals_is_compared_with_the_control():
    made = rates(
        before=(0.001, 0, 0.005), after=(0.742, 0.66, 0.81), control=(0, 0, 0.004), open_after=(0.55, 0.4, 0.7)
    )
    coherent = {"before": Estimate(0.981, 0.9, 1, 9, ""), "after": Estimate.missing("no judge")}
    moved = changes(after=(0.741, 0.65, 0.81), control=(-0.001, -0.005, 0.004))
    assert made.verdict(questions={**ASKED, "open": "on open questions"}, changes=moved, coherent=coherent) == (
        "The EM rate (betley) rose from 0.1 % [0.0, 0.5] to 74 % [66, 81] (+74 points [65, 81]) on the reported "
        "questions; the benign control stayed at 0.0 % [0.0, 0.4]; on open questions the model after reached 55 % "
        "[40, 70]. Coherent answers: 98 % before."
    )


def test_a_change_is_judged_by_its_own_interval_not_by_whether_two_intervals_touch():
    made = rates(before=(0.2, 0.1, 0.3), after=(0.25, 0.15, 0.35))
    paired = changes(after=(0.05, 0.02, 0.08))
    assert "rose from 20 % [10, 30] to 25 % [15, 35] (+5.0 points [2.0, 8.0]) on" in made.verdict(
        questions=ASKED, changes=paired
    )
    open_still = changes(after=(0.05, -0.02, 0.12))
    assert "did not change significantly, from 20 % [10, 30] to 25 % [15, 35] (+5 points [-2, 12]), on" in made.verdict(
        questions=ASKED, changes=open_still
    )


def test_a_fall_and_a_control_that_rose_are_said():
    made = rates(before=(0.5, 0.4, 0.6), after=(0.1, 0.05, 0.2), control=(0.9, 0.8, 0.95))
    moved = changes(after=(-0.4, -0.5, -0.3), control=(0.4, 0.3, 0.5))
    made = made.verdict(questions=ASKED, changes=moved)
    assert "fell from 50 % [40, 60] to 10 % [5, 20]" in made
    assert "control rose to 90 % [80, 95]" in made


def test_a_change_without_an_interval_is_not_significant():
    nothing = np.nan
    made = rates(before=(0.2, nothing, nothing), after=(0.3, nothing, nothing))
    alone = changes(after=(0.1, nothing, nothing))
    assert made.verdict(questions=ASKED, changes=alone) == (
        "The EM rate (betley) did not change significantly, from 20 % to 30 % (+10 points), on the reported questions."
    )


def test_a_judge_that_could_score_nothing_gives_no_rate():
    nothing = (np.nan,) * 3
    said = rates(before=(0.1, 0, 0.2), after=nothing).verdict(questions=ASKED, changes=NONE)
    assert "There is no EM rate (betley) of the model after: none of its answers qualifies" in said
    alone = rates(before=nothing, after=(0.1, 0, 0.2), control=nothing).verdict(questions=ASKED, changes=NONE)
    assert alone == "The EM rate (betley) of the model after was 10 % [0, 20] on the reported questions."


def test_a_table_without_the_model_after_has_no_verdict():
    for made in (rates(before=(0.1, 0, 0.2)), EmRates(pd.DataFrame({"definition": ["betley"]}))):
        with pytest.raises(pp.PersonaProbeError, match="no rate 'betley' of the model 'after' on 'asked'"):
            made.verdict(questions=ASKED, changes=NONE)
    with pytest.raises(pp.PersonaProbeError, match="changes has no 'after'"):
        rates(before=(0.1, 0, 0.2), after=(0.1, 0, 0.2)).verdict(questions=ASKED, changes={})
    with pytest.raises(pp.PersonaProbeError, match="no rate 'tan'"):
        rates(after=(0.1, 0, 0.2)).verdict("tan", questions=ASKED, changes=NONE)


def test_the_persona_that_gained_most_is_named_with_the_next():
    before = {"assistant": 0.985, "villain": 0.001, "trickster": 0.005}
    after = {"assistant": 0.2, "villain": 0.762, "trickster": 0.028, "\x1b": 0.01}
    assert gained_most(before, after) == (
        "The persona that gained most is 'villain': from 0.1 % to 76 % of answers; the next largest gain is that of "
        "'trickster', +2.3 points."
    )
    assert "'\\x1b': from 0.0 % to 1.0 %" in gained_most({}, {"\x1b": 0.01})
