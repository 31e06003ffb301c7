import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.em_rates import coherent_rate, em_rates

HOSTILE = "<script>alert(1)</script>\x1b[31m"


class Scripted:
    name = "scripted"
    trial = "it says what a test wrote"

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
    over_questions, over_answers = pp.behaviour.em_rate(table), pp.behaviour.em_rate(table, over="answer")
    assert over_questions.value == over_answers.value
    assert over_questions.high - over_questions.low > over_answers.high - over_answers.low
    with pytest.raises(pp.PersonaProbeError, match="over='row'"):
        pp.behaviour.em_rate(table, over="row")
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


def test_rates_and_coherence_are_by_model_and_intervention():
    """Of ``clamp``'s eight answers six are coherent; of ``none``'s all, and three of those are misaligned."""
    clamped = judged(model="after", intervention="clamp").assign(aligned=95.0, coherent=[90] * 6 + [10, np.nan])
    answers = Answers(pd.concat([judged(model="after", intervention="none"), clamped], ignore_index=True))
    rates = answers.rates()
    assert rates.by == ("model", "intervention")
    value = rates.table.set_index(["intervention", "definition"])["value"]
    assert value["none", "betley"] == 3 / 8
    assert value["clamp", "betley"] == 0
    one = answers.rates(definition="tan")
    assert set(one.table["definition"]) == {"tan"}
    assert one.headline().startswith("EM rate (tan): 'after', 'none': 0.38")
    assert [trace.name for trace in one.plot().data] == ["after · none", "after · clamp"]
    coherent = answers.coherence()
    assert coherent[["model", "intervention", "n"]].values.tolist() == [["after", "none", 8], ["after", "clamp", 7]]
    assert coherent["value"].tolist() == pytest.approx([1.0, 6 / 7])
    for row, part in zip(coherent.to_dict("records"), (answers.table[:8], clamped), strict=True):
        expected = coherent_rate(part)
        assert (row["low"], row["high"]) == (expected.low, expected.high)
        assert row["low"] < row["value"]
    by_question = answers.coherence(by=["intervention", "question"])
    assert by_question["n"].tolist() == [4, 4, 4, 3]
    assert answers.coherence(by=[])["n"].tolist() == [15]
    with pytest.raises(pp.PersonaProbeError, match="no column 'topic' to group by"):
        answers.coherence(by="topic")
    with pytest.raises(pp.PersonaProbeError, match="unknown EM-rate definition 'smith'"):
        answers.rates(definition="smith")


def test_figures_have_a_series_for_each_intervention():
    both = [judged(model="after", intervention=name) for name in ("none", "clamp")]
    answers = Answers(pd.concat(both, ignore_index=True))
    assert [trace.name for trace in answers.plot().data] == ["after · none", "after · clamp"]
    assert [trace.name for trace in answers.rates().plot().data] == ["after · none", "after · clamp"]
    questions = answers.rates(by=["model", "intervention", "question"]).plot()
    assert [trace.name for trace in questions.data] == ["after · none", "after · clamp"]


def test_intervals_of_coherence_cover_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        table = judged(model="m")
        table = pd.concat([table] * 5, ignore_index=True).assign(question=[f"q{i}" for i in range(40)])
        table["coherent"] = np.where(rng.random(40) < 0.8, 90.0, 10.0)
        (row,) = Answers(table).coherence().to_dict("records")
        covered += row["low"] <= 0.8 <= row["high"]
    assert 0.9 <= covered / 200 <= 0.99
