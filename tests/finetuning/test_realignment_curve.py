import numpy as np
import pandas as pd

import persona_probe as pp


def curve(**columns):
    table = pd.DataFrame({"n": [32, 0], "value": [0.02, 0.9], "low": [0.01, 0.85], "high": [0.04, 0.94]}).assign(
        rows=[200, 190], coherent=[0.9, 0.95], projection_sd=[0.5, 12.25]
    )
    return pp.finetuning.RealignmentCurve(table.assign(**columns), 120, "betley")


def test_the_headline_gives_rates_with_their_intervals_and_n():
    assert curve().headline() == (
        "EM rate (betley, 95 % interval) by number of benign examples, 120 steps each: "
        "0: 90.0% [85.0%, 94.0%] (n = 190) -> 32: 2.0% [1.0%, 4.0%] (n = 200)"
    )


def test_without_a_judge_the_headline_gives_projections():
    said = curve(value=np.nan, low=np.nan, high=np.nan, rows=0).headline()
    assert said.endswith("by number of benign examples, 120 steps each: 0: +12.25 -> 32: +0.50")
    assert "no EM rate" in said
    assert "nan" not in said


def test_a_number_that_is_missing_is_said_in_words():
    assert "32: no rate" in curve(value=[np.nan, 0.9]).headline()
    assert "0: 90.0% [no interval]" in curve(low=np.nan, high=np.nan).headline()
    assert "32: not measured" in curve(value=np.nan, projection_sd=[np.nan, 1.0]).headline()


def test_the_verdict_says_from_where_on_the_rate_stays_low():
    assert curve().verdict() == (
        "Realignment took the EM rate (betley) from 90 % at 0 to 2.0 % at 32 benign examples; it is 5 % or below from "
        "32 on."
    )
    assert curve().examples_to(0.95) == 0
    missed = curve(value=[0.2, 0.01])
    assert missed.examples_to() is None
    assert missed.verdict().endswith("it never stayed at 5 % or below.")


def test_without_a_judge_the_verdict_is_of_the_projection():
    unjudged = curve(value=np.nan, low=np.nan, high=np.nan)
    assert unjudged.examples_to() is None
    assert unjudged.verdict() == (
        "Realignment took the projection from +12.25 SD at 0 to +0.50 SD at 32 benign examples; there is no EM rate."
    )
    assert "was not measured" in curve(value=np.nan, projection_sd=np.nan).verdict()


def test_as_many_steps_on_other_examples_are_nulls_and_not_points_of_the_curve():
    plain = curve()
    null = plain.table.iloc[:1].assign(n=24, value=0.7, low=0.6, high=0.8, trained_on="pirate rows")
    table = pd.concat([plain.table.assign(trained_on="benign"), null], ignore_index=True)
    with_null = pp.finetuning.RealignmentCurve(table, 120, "betley")
    assert with_null.headline() == plain.headline()
    assert with_null.examples_to() == plain.examples_to() == 32
    course, nulls = with_null.verdict().splitlines()
    assert course == plain.verdict()
    assert nulls == (
        "Nulls: after as many steps on other examples the EM rate (betley) is 70.0% [60.0%, 80.0%] (n = 200) on pirate "
        "rows."
    )
    traces = {trace.name: trace for trace in with_null.plot().data}
    assert list(traces["EM rate (left)"].y) == [0.9, 0.02]
    assert list(traces["null: pirate rows"].y) == [0.7]
