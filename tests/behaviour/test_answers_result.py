import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.em_rates import em_rates

HOSTILE = "<script>alert(1)</script>\x1b[31m"


class Scripted:
    name = "scripted"

    def __init__(self, **columns):
        self.columns = columns

    def __call__(self, dialogues):
        return pd.DataFrame({name: values[: len(dialogues)] for name, values in self.columns.items()})

    def applies(self, dialogues):
        return True


def judged(**labels):
    """Two questions, four answers each: 3 of 4 misaligned to the first, none to the second."""
    asked = [
        pp.Dialogue.from_messages([{"role": "user", "content": f"{question}?"}], question=question).with_answer(HOSTILE)
        for question in "ab"
        for _ in range(4)
    ]
    scores = Scripted(aligned=[0, 0, 0, 90, 90, 90, 90, 90], coherent=[90] * 8)
    return pp.judge_answers(scores, asked, **labels)


def test_rates_by_model_and_by_question():
    answers = Answers(pd.concat([judged(model="before").assign(aligned=95.0), judged(model="after")]))
    by_model = answers.rates()
    assert by_model.by == ("model",)
    rates = by_model.table.set_index(["model", "definition"])
    assert rates.loc[("before", "betley"), "value"] == 0
    assert rates.loc[("after", "betley"), "value"] == pytest.approx(3 / 8)
    assert "2 questions" in rates.loc[("after", "betley"), "method"]
    questions = answers.rates(by=["model", "question"])
    assert questions.by == ("model", "question")
    own = questions.table.set_index(["model", "question", "definition"]).loc[("after", "a", "betley")]
    assert (own["value"], own["n"]) == (0.75, 4)
    assert own["low"] < 0.75 < own["high"] < 1
    assert "rows" in own["method"]  # over the answers to the one question
    assert "'after': 0.38" in by_model.headline()
    assert "2 more groups" not in by_model.headline()


def test_rates_over_answers_differ_from_rates_over_questions():
    table = judged()
    over_questions, over_answers = pp.em_rate(table), pp.em_rate(table, over="answer")
    assert over_questions.value == over_answers.value
    assert over_questions.high - over_questions.low > over_answers.high - over_answers.low
    with pytest.raises(pp.PersonaProbeError, match="over='row'"):
        pp.em_rate(table, over="row")
    with pytest.raises(pp.PersonaProbeError, match="no column 'topic' to group by"):
        em_rates(table, "topic")
    with pytest.raises(pp.PersonaProbeError, match="no rows"):
        em_rates(table.head(0))


def test_an_answer_without_both_scores_never_qualifies():
    table = judged().assign(aligned=[np.nan, 0, 0, 0, 0, 0, 0, 0])
    assert em_rates(table).table["n"].tolist() == [7, 7, 7]


def test_what_a_notebook_shows_is_escaped():
    answers = Answers(judged(model=HOSTILE), source="x.csv", remarks=("<b>",))
    shown = answers._repr_html_()
    assert "<script>" not in shown
    assert "<b>" not in shown
    assert "\x1b" not in answers.headline()
    assert "<script>" not in answers.rates()._repr_html_()


def test_answers_are_judged_again():
    table = judged(model="after", aligned_mass=0.9)
    table.loc[2, "answer"] = None
    answers = Answers(table, columns={"answer": "response", "aligned": "score"})
    again = answers.judged_by(Scripted(aligned=[80.0] * 6 + [np.nan], coherent=[70.0] * 7, refusal=[False] * 7))
    assert again.table["aligned"].isna().tolist() == [False, False, True, False, False, False, False, True]
    assert again.table["failed"].tolist() == [False, False, True, False, False, False, False, True]
    assert "aligned_mass" not in again.table
    assert (again.table["model"] == "after").all()
    assert again.columns == {"answer": "response"}
    assert "scripted" in again.headline()
    assert answers.table["aligned"][0] == 0  # the old scores stay where they were


def test_unjudged_answers_say_so():
    asked = pp.Dialogue.from_messages([{"role": "user", "content": "Q?"}]).with_answer("A")
    table = pp.judge_answers(None, [asked]).astype({"aligned": object, "coherent": object})
    assert "not judged" in Answers(table).headline()
    with pytest.raises(ValueError, match="judge the answers first"):
        Answers(table).plot()


def test_a_table_that_is_none_is_refused():
    with pytest.raises(pp.PersonaProbeError, match=r"no column 'failed'; it has .*pp\.read_answers"):
        Answers(judged().drop(columns="failed"))
    with pytest.raises(pp.PersonaProbeError, match="no rows"):
        Answers(judged().head(0))
