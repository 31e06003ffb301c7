import math

import pytest

from persona_probe.amplification.verdict import Finding, finding, number, sentence

NAN = math.nan
AFTER = {
    "layer": 3,
    "shift_sd": 6.1,
    "low_sd": 5.9,
    "high_sd": 6.3,
    "random_sd": 0.2,
    "isotropic_sd": 0.8,
    "shuffled_sd": NAN,
    "other_traits_sd": NAN,
    "specificity": 10.4,
    "specificity_low": 8.0,
    "specificity_high": 13.1,
    "p_corrected": 0.0005,
    "detectable_sd": 0.4,
    "n_questions": 40,
    "n_runs": 3,
}
CONTROL = {**AFTER, "shift_sd": 0.3, "low_sd": 0.2, "high_sd": 0.4, "specificity": NAN}
LEAST = 1 / 2001


def after(**more):
    return {**AFTER, **more}


def control(shift):
    return {**CONTROL, "shift_sd": shift}


@pytest.mark.parametrize(
    ("row", "benign", "expected"),
    [
        (after(), CONTROL, Finding.AMPLIFIED),
        (after(shift_sd=-6.1, low_sd=-6.3, high_sd=-5.9), CONTROL, Finding.REDUCED),
        (after(shift_sd=0.19, random_sd=0.1, isotropic_sd=0.15), control(0.01), Finding.NEGLIGIBLE),
        (after(low_sd=-0.1), CONTROL, Finding.UNDETECTED),
        (after(p_corrected=0.06), CONTROL, Finding.UNDETECTED),
        (after(low_sd=NAN, high_sd=NAN), CONTROL, Finding.UNTESTED),
        (after(specificity=1.2, specificity_low=0.9), control(5.0), Finding.NULLS),
        (after(specificity=2.0, specificity_low=1.6), control(-6.2), Finding.NULLS),
        (after(random_sd=6.2), CONTROL, Finding.NULLS),
        (after(isotropic_sd=6.2), CONTROL, Finding.NULLS),
        (after(shuffled_sd=6.2), CONTROL, Finding.NULLS),
        (after(other_traits_sd=6.0), CONTROL, Finding.AMPLIFIED),
        (after(other_traits_sd=6.1), CONTROL, Finding.SHARED),
        (after(other_traits_sd=6.2, random_sd=6.2), CONTROL, Finding.NULLS),
        (after(shift_sd=-6.1, low_sd=-6.3, high_sd=-5.9, other_traits_sd=6.2), CONTROL, Finding.REDUCED),
        (after(specificity=NAN, specificity_low=NAN), None, Finding.NO_CONTROL),
        (after(specificity=NAN, specificity_low=NAN, random_sd=6.2), None, Finding.NULLS),
        (after(specificity=NAN, specificity_low=NAN, isotropic_sd=6.2), None, Finding.NULLS),
    ],
)
def test_a_shift_is_weighed_against_every_null(row, benign, expected):
    assert finding(row, benign, LEAST) is expected


def test_five_questions_cannot_tell():
    assert finding(after(n_questions=5), CONTROL, 1 / 16) is Finding.UNTESTED
    assert sentence(after(n_questions=5), CONTROL, 1 / 16).startswith(
        "shift of 6.10 [5.90, 6.30] SD at layer 3: 5 questions cannot show a difference from zero; give more"
    )


MOVED = "6.10 [5.90, 6.30] SD at layer 3"
DRAWN = "random directions 0.20 (97.5 %); isotropic ones 0.80 (97.5 %)"
BESIDE = f"the benign control moves 0.30; {DRAWN}"
RATIO = "specificity 10.40 [8.00, 13.10]"
UNSEEN = "the sample could have detected 0.40 SD in one uncorrected test"


@pytest.mark.parametrize(
    ("row", "benign", "expected"),
    [
        (after(), CONTROL, f"amplified {MOVED}; {BESIDE}; {RATIO}"),
        (
            after(specificity=1.1, specificity_low=0.8, specificity_high=math.inf),
            control(5.5),
            f"moved {MOVED}, but no more than its nulls: the benign control moves along it too, so this direction "
            f"tracks that the model was fine-tuned, not the trait; the benign control moves 5.5; {DRAWN}; "
            "specificity 1.1 [0.80, ∞]",
        ),
        (
            after(shift_sd=0.1, low_sd=-0.2, high_sd=0.4, p_corrected=0.6),
            CONTROL,
            "not amplified at layer 3: 0.10 [-0.20, 0.40] SD is not significantly different from zero "
            f"(corrected p = 0.6); {UNSEEN}",
        ),
        (
            after(shift_sd=0.1, low_sd=-0.2, high_sd=0.4),
            CONTROL,
            f"not amplified at layer 3: 0.10 [-0.20, 0.40] SD is not significantly different from zero; {UNSEEN}",
        ),
        (
            after(shift_sd=-2.0, low_sd=-2.5, high_sd=-1.5, other_traits_sd=3.0),
            CONTROL,
            f"not amplified but reduced: -2.00 [-2.50, -1.50] SD at layer 3; {BESIDE}; other traits' directions up to "
            f"3.0, so it is not this trait alone; {RATIO}",
        ),
        (
            after(specificity=NAN, specificity_low=NAN),
            None,
            f"moved {MOVED}; {DRAWN}; there is no control, so this cannot be distinguished from what any fine-tuning "
            "does",
        ),
        (
            after(n_runs=1),
            CONTROL,
            f"amplified {MOVED}; {BESIDE}; {RATIO}; one fine-tuning run, so the intervals do not include how runs "
            "differ",
        ),
        (
            after(shift_sd=0.1, low_sd=0.05, high_sd=0.15, random_sd=0.01, isotropic_sd=0.03),
            control(0.01),
            "not amplified at layer 3: 0.10 [0.05, 0.15] SD is less than a small effect (0.2 SD); the benign control "
            f"moves 0.01; random directions 0.01 (97.5 %); isotropic ones 0.03 (97.5 %); {RATIO}",
        ),
        (
            after(isotropic_sd=7.0),
            CONTROL,
            f"moved {MOVED}, but no more than its nulls: directions drawn evenly from the sphere move as much, so this "
            "direction is nothing special; the benign control moves 0.30; random directions 0.20 (97.5 %); isotropic "
            f"ones 7.0 (97.5 %); {RATIO}",
        ),
        (
            after(other_traits_sd=6.2),
            CONTROL,
            f"amplified {MOVED}, but not this trait alone; {BESIDE}; other traits' directions up to 6.2; {RATIO}",
        ),
        (
            after(shift_sd=33.2, low_sd=33.08, high_sd=33.31),
            CONTROL,
            f"amplified 33.20 [33.08, 33.31] SD at layer 3; {BESIDE}; {RATIO}",
        ),
        (
            after(shuffled_sd=7.0),
            CONTROL,
            f"moved {MOVED}, but no more than its nulls: directions from shuffled labels move as much, so the labels "
            f"are not the reason; {BESIDE}; shuffled labels 7.0 (97.5 %); {RATIO}",
        ),
    ],
)
def test_the_line_says_it_plainly(row, benign, expected):
    assert sentence(row, benign, LEAST) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.004, "0.004"), (-0.35, "-0.35"), (0.996, "1.0"), (9.96, "10"), (18.02, "18")],
)
def test_numbers_are_short_and_never_read_as_zero(value, text):
    assert number(value) == text
