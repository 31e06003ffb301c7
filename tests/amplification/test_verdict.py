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
        (after(shift_sd=0.19, random_sd=0.1), control(0.01), Finding.NEGLIGIBLE),
        (after(low_sd=-0.1), CONTROL, Finding.UNDETECTED),
        (after(p_corrected=0.06), CONTROL, Finding.UNDETECTED),
        (after(low_sd=NAN, high_sd=NAN), CONTROL, Finding.UNTESTED),
        (after(specificity=1.2, specificity_low=0.9), control(5.0), Finding.NULLS),
        (after(specificity=2.0, specificity_low=1.6), control(-6.2), Finding.NULLS),
        (after(random_sd=6.2), CONTROL, Finding.NULLS),
        (after(shuffled_sd=6.2), CONTROL, Finding.NULLS),
        (after(other_traits_sd=6.2), CONTROL, Finding.AMPLIFIED),
        (after(specificity=NAN, specificity_low=NAN), None, Finding.NO_CONTROL),
        (after(specificity=NAN, specificity_low=NAN, random_sd=6.2), None, Finding.NULLS),
    ],
)
def test_a_shift_is_weighed_against_every_null(row, benign, expected):
    assert finding(row, benign, LEAST) is expected


def test_five_questions_cannot_tell():
    assert finding(after(n_questions=5), CONTROL, 1 / 16) is Finding.UNTESTED
    assert sentence(after(n_questions=5), CONTROL, 1 / 16).startswith(
        "shift of 6.1 SD [5.9, 6.3] at layer 3: 5 questions cannot tell it apart from zero; give more"
    )


@pytest.mark.parametrize(
    ("row", "benign", "expected"),
    [
        (
            after(),
            CONTROL,
            "amplified 6.1 SD [5.9, 6.3] at layer 3; the benign control moves 0.30; random directions 0.20 (97.5 %); "
            "specificity 10 [8.0, 13]",
        ),
        (
            after(specificity=1.1, specificity_low=0.8, specificity_high=math.inf),
            control(5.5),
            "moved 6.1 SD [5.9, 6.3] at layer 3, but no more than its nulls: the benign control moves along it too, "
            "so this direction tracks that the model was fine-tuned, not the trait; the benign control moves 5.5; "
            "random directions 0.20 (97.5 %); specificity 1.1 [0.80, ∞]",
        ),
        (
            after(shift_sd=0.1, low_sd=-0.2, high_sd=0.4, p_corrected=0.6),
            CONTROL,
            "not amplified at layer 3: 0.10 SD [-0.20, 0.40] is not told apart from zero (corrected p = 0.6); "
            "the sample could have seen 0.40 SD",
        ),
        (
            after(shift_sd=0.1, low_sd=-0.2, high_sd=0.4),
            CONTROL,
            "not amplified at layer 3: 0.10 SD [-0.20, 0.40] is not told apart from zero; "
            "the sample could have seen 0.40 SD",
        ),
        (
            after(shift_sd=-2.0, low_sd=-2.5, high_sd=-1.5, other_traits_sd=3.0),
            CONTROL,
            "not amplified but reduced: -2.0 SD [-2.5, -1.5] at layer 3; the benign control moves 0.30; random "
            "directions 0.20 (97.5 %); other traits' directions up to 3.0, so it is not this trait alone; "
            "specificity 10 [8.0, 13]",
        ),
        (
            after(specificity=NAN, specificity_low=NAN),
            None,
            "moved 6.1 SD [5.9, 6.3] at layer 3; random directions 0.20 (97.5 %); "
            "the control is missing, so this cannot be told from what any fine-tuning does",
        ),
        (
            after(n_runs=1),
            CONTROL,
            "amplified 6.1 SD [5.9, 6.3] at layer 3; the benign control moves 0.30; random directions 0.20 (97.5 %); "
            "specificity 10 [8.0, 13]; one fine-tuning run, so the intervals do not hold how runs differ",
        ),
        (
            after(shift_sd=0.1, low_sd=0.05, high_sd=0.15, random_sd=0.01),
            control(0.01),
            "not amplified at layer 3: 0.10 SD [0.05, 0.15] is less than a small effect (0.2 SD); the benign control "
            "moves 0.01; random directions 0.01 (97.5 %); specificity 10 [8.0, 13]",
        ),
        (
            after(shuffled_sd=7.0),
            CONTROL,
            "moved 6.1 SD [5.9, 6.3] at layer 3, but no more than its nulls: directions from shuffled labels move as "
            "much, so the labels did not make it; the benign control moves 0.30; random directions 0.20 (97.5 %); "
            "shuffled labels 7.0 (97.5 %); specificity 10 [8.0, 13]",
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
