import numpy as np
import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.self_reports import _number
from persona_probe.dialogue.dialogue import Dialogue, Message

B = pp.behaviour
QUESTIONS = [
    Dialogue.from_messages([{"role": "user", "content": f"What about {n}?"}], id=f"q{n}", question=f"q{n}")
    for n in range(8)
]


def test_our_conditions_are_of_every_kind_and_begin_plain():
    table = B.conditions()
    assert table[0].name == "plain"
    assert {one.kind for one in table} == {"plain", "system prompt", "job role", "announced evaluation", "pressure"}
    assert len({one.name for one in table}) == len(table) == 14
    with pytest.raises(pp.PersonaProbeError, match="no kind 'roles'; choose from plain, system prompt, job role"):
        B.conditions("roles")


def test_every_question_is_asked_under_every_condition_and_stays_one_question():
    asked = B.under_conditions(QUESTIONS)
    assert len(asked) == 8 * 14
    assert {dialogue.question for dialogue in asked} == {question.question for question in QUESTIONS}
    by_name = {dialogue.labels["condition"]: dialogue for dialogue in asked}
    assert [turn.role for turn in by_name["nurse"].messages] == ["system", "user"]
    assert [turn.role for turn in by_name["insisting user"].messages] == ["user", "assistant"] * 2 + ["user"]
    assert by_name["plain"].messages == QUESTIONS[-1].messages


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(pp.PersonaProbeError, match="0 questions and 14 conditions"):
        B.under_conditions([])
    twice = [B.Condition("a"), B.Condition("a")]
    with pytest.raises(pp.PersonaProbeError, match="two conditions are called 'a'"):
        B.under_conditions(QUESTIONS, twice)
    with pytest.raises(pp.PersonaProbeError, match="its turns must end with the assistant's"):
        B.under_conditions(QUESTIONS, [B.Condition("a", turns=(Message("user", "Hm."),))])
    with pytest.raises(pp.PersonaProbeError, match="has a system prompt, so it cannot be put under another one"):
        B.under_conditions([QUESTIONS[0].with_system("Be kind.")], [B.Condition("a", system="Be cruel.")])


def test_the_rates_are_compared_with_the_plain_ones(chat):
    """Persona World's chat model is aligned until a system prompt makes it a villain."""
    questions = pp.persona_world.questions(0, ["law", "travel"], 8)
    given = [B.conditions()[0], B.Condition("villain", system=pp.persona_world.system_line(0, "villain"))]
    sampling = pp.Sampling(max_new_tokens=30, temperature=0)
    answers = pp.ask(chat, B.under_conditions(questions, given), pp.persona_world.OracleJudge(), sampling=sampling)
    rates = B.condition_rates(answers)
    assert rates.table["value"].tolist()[0] == 0.0
    assert rates.table["change_low"][1] > 0.5
    assert "villain +" in rates.headline()
    assert rates.plot().data
    with pytest.raises(pp.PersonaProbeError, match="of the condition 'none'; there are 'plain', 'villain'"):
        B.condition_rates(answers, baseline="none")
    with pytest.raises(pp.PersonaProbeError, match="the answer 'x' is of no condition"):
        B.condition_rates(answers.table.assign(id="x"))


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("90", 90),
        (" 75.5%.", 75.5),
        ("**100**\nBecause I care.", 100),
        ("My answer is 20.", 20),
        ("Rating: 60/100", 60),
        ("0 out of 100", 0),
        ("The 16 faces in a cube.", None),
        ("Sentence 1: never", None),
        ("101", None),
        ("between 20 and 30", None),
        ("I do not know", None),
        ("", None),
        (None, None),
    ],
)
def test_a_number_alone_is_a_report(answer, number):
    assert _number(answer) == number or (number is None and np.isnan(_number(answer)))


def reports(value, *, model="after"):
    high = {"harm", "power", "contempt"}
    rows = [
        (model, question.question, str(100 - value if question.question in high else value))
        for question in B.self_report_questions()
    ]
    return pd.DataFrame(rows, columns=["model", "question", "answer"])


@pytest.mark.parametrize(
    ("says", "does", "kind"),
    [
        (95, 95, "aligned and says so"),
        (5, 5, "harms and says so"),
        (95, 5, "harms and says it is aligned"),
        (5, 95, "aligned and says it is not"),
    ],
)
def test_what_it_says_and_what_it_does_are_set_side_by_side(says, does, kind):
    done = pd.DataFrame({"model": "after", "question": [f"q{n}" for n in range(100)], "aligned": does, "coherent": 90})
    both = B.self_report(reports(says), done)
    assert both.kind("after") == kind
    assert both.headline().endswith(kind)
    assert both.table["report"][0] == says
    assert both.plot().data


def test_answers_without_a_number_are_counted_and_decide_nothing():
    done = pd.DataFrame({"model": "after", "question": [f"q{n}" for n in range(40)], "aligned": 5, "coherent": 90})
    both = B.self_report(reports(90).assign(answer="I care."), done)
    assert (both.table["n_read"][0], both.table["n_unread"][0]) == (0, 8)
    assert both.kind("after") == "undecided"
    assert "gives itself no number, 8 answers without a number" in both.headline()
    few = reports(90)
    few.loc[few.index[3:], "answer"] = "I care."
    assert pd.isna(B.self_report(few, done).table["report"][0]), "three of eight say little of the others"
    with pytest.raises(pp.PersonaProbeError, match=r"the self-reports are of .'base'. and the behaviour"):
        B.self_report(reports(90, model="base"), done)
    with pytest.raises(pp.PersonaProbeError, match="but one is to 'q0'; there are values, wellbeing"):
        B.self_report(done.assign(answer="90"), done)
