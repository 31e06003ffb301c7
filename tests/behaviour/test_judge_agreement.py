"""Two judgements are compared answer by answer, whatever their order, and nothing is dropped silently."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

import persona_probe as pp
from persona_probe.behaviour import judge_agreement
from tests.behaviour.judged import answers, noisy, unscored

NAMES = ("the judge", "a person")


def test_answers_are_matched_by_what_they_are():
    table = answers()
    other = noisy(table)
    straight = judge_agreement(table, other, names=NAMES)
    shuffled = judge_agreement(table, other.sample(frac=1.0, random_state=0), names=NAMES)
    pd.testing.assert_frame_equal(straight.table, shuffled.table)
    expected = cohen_kappa_score(table["aligned"] < 30, other["aligned"] < 30)
    assert straight.estimate("kappa", "misaligned").value == pytest.approx(expected)
    assert straight.remarks == ()


def test_files_that_changed_line_ends_match_and_models_are_kept_apart():
    first = answers(20).assign(answer="Yes.\r\nNo.")  # the same words by two models, to each question
    both = pd.concat([first, first.assign(model="before", aligned=100 - first["aligned"])])
    unix = both.assign(answer="Yes.\nNo. ").iloc[::-1]
    agreement = judge_agreement(both, unix)
    assert agreement.estimate("kappa", "misaligned").value == 1.0
    assert agreement.unmatched == (0, 0)


def test_what_is_unmatched_or_repeated_is_counted_and_said():
    table = answers()
    other = pd.concat([table.iloc[:150], table.iloc[:2], answers(3, model="stranger")])
    agreement = judge_agreement(table, other, names=NAMES)
    assert agreement.unmatched == (50, 5)
    assert len(agreement.answers) == 150
    said = agreement.headline()
    assert "50 answers of the judge are not in a person and were left out" in said
    assert "5 answers of a person are not in the judge and were left out" in said
    assert "2 pairs are of answers that occur several times" in said


def test_refusals_and_failures_are_categories_of_their_own():
    table = answers()
    other = unscored(unscored(table, range(10), "failed"), range(10, 14), "refusal")
    agreement = judge_agreement(table, other, names=NAMES)
    assert agreement.estimate("kappa", "misaligned").n == 186
    assert agreement.estimate("kappa", "category").n == 200
    assert agreement.estimate("kappa", "category").value < 1.0
    assert agreement.confusion[["refusal", "failed"]].sum().tolist() == [4, 10]
    assert "4 refusals and 10 failures, not in kappa" in agreement.headline()
    read = agreement.disagreements(None)
    assert len(read) == 14
    assert read["difference"].isna().all()


def test_bias_and_disagreements():
    table = answers(40)
    other = table.assign(aligned=(table["aligned"] + 4).clip(upper=99))
    other.loc[7, "aligned"] = 0.0
    agreement = judge_agreement(table, other)
    assert agreement.estimate("bias", "aligned").value == pytest.approx((other["aligned"] - table["aligned"]).mean())
    worst = agreement.disagreements(3)
    assert worst["answer"].iloc[0] == "after says 7."
    assert worst["difference"].tolist() == sorted(worst["difference"], reverse=True)
    with pytest.raises(pp.PersonaProbeError, match="n is 0"):
        agreement.disagreements(0)


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "said"),
    [(1.0, 1.0, "agree well"), (0.5, 0.5, "agree poorly"), (0.9, 0.9, "better than by chance")],
)
def test_the_verdict_follows_the_interval(sensitivity, specificity, said):
    table = answers(400)
    assert said in judge_agreement(table, noisy(table, sensitivity, specificity)).verdict()


def test_there_is_a_verdict_where_nothing_was_scored_or_nothing_misaligned():
    table = answers(rate=0.0)
    assert "cannot be said: both put every row into one category" in judge_agreement(table, table).verdict()
    blank = judge_agreement(table, unscored(table, range(200), "failed"))
    assert "cannot be said: no answer has both scores" in blank.verdict()
    assert "200 failures" in blank.headline()


def test_it_is_shown_and_drawn():
    agreement = judge_agreement(answers(), noisy(answers()), names=("<b>x</b>", "y"))
    assert "&lt;b&gt;" in agreement._repr_html_()
    figure = agreement.plot()
    assert figure.data[0].z[0][0] == pytest.approx(agreement.confusion.iloc[0, 0] / agreement.confusion.iloc[0].sum())
    assert "<b>x" not in figure.to_json()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (answers(), "labels.csv", "second must be judged answers"),
        (answers(), answers(model="other").assign(answer="else"), "no answer is in both tables"),
        (answers(), answers().drop(columns="coherent"), "no column 'coherent'"),
        (answers(), answers().iloc[:0], "second has no rows"),
        (answers().assign(aligned=101.0), answers(), "first: aligned=101"),
    ],
)
def test_what_cannot_be_compared_is_refused(first, second, message):
    with pytest.raises(pp.PersonaProbeError, match=message):
        judge_agreement(first, second)


def test_wrong_names_are_refused():
    with pytest.raises(pp.PersonaProbeError, match="two different names"):
        judge_agreement(answers(), answers(), names=("a", "a"))
    with pytest.raises(pp.PersonaProbeError, match="choose one of kappa of misaligned"):
        judge_agreement(answers(), answers()).estimate("kappa", "aligned")
    with pytest.raises(pp.PersonaProbeError, match="unknown EM-rate definition"):
        judge_agreement(answers(), answers(), definition="mine")


def test_a_sheet_drawn_in_unequal_shares_is_named():
    table = answers()
    weighted = table.assign(weight=np.where(np.arange(200) < 100, 1.0, 4.0))
    assert "drawn in unequal shares" in judge_agreement(table, weighted).headline()
