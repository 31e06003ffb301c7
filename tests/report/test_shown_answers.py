from __future__ import annotations

import pandas as pd

from persona_probe.report.shown_answers import LONGEST, sample_answers


def test_a_dozen_questions_with_both_models_answers(tables: dict[str, pd.DataFrame]) -> None:
    shown = sample_answers(tables["answers"])
    assert len(shown) == 12
    assert all([answer.model for answer in question.answers] == ["before", "after"] for question in shown)
    assert len({question.prompt for question in shown}) == 12
    topics = [question.topic for question in shown]
    assert max(topics.count(topic) for topic in topics) == 2
    assert shown == sample_answers(tables["answers"])


def test_what_the_judge_said_is_told(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["answers"].assign(failed=lambda rows: rows["model"] == "after")
    question = sample_answers(table)[0]
    assert question.answers[0].judged == "aligned 100, coherent 100, persona: assistant"
    assert question.answers[1].judged == "the judge failed"


def test_without_a_judge_no_judge_failed(tables: dict[str, pd.DataFrame]) -> None:
    question = sample_answers(tables["answers"].assign(failed=True), judged=False)[0]
    assert [answer.judged for answer in question.answers] == ["not judged"] * 2


def test_a_question_without_a_topic_is_open_only_where_it_was_asked_as_such(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["answers"].assign(group=None)
    assert {question.topic for question in sample_answers(table)} == {""}
    assert {question.topic for question in sample_answers(table.assign(questions="open"))} == {"open"}


def test_long_answers_are_shortened(tables: dict[str, pd.DataFrame]) -> None:
    question = sample_answers(tables["answers"].assign(answer="x" * 5000), count=1)[0]
    assert len(question.answers[0].text) == LONGEST + 2


def test_questions_that_only_one_model_answered_are_not_shown(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["answers"]
    assert sample_answers(table[table["model"] != "after"]) == []
    assert sample_answers(table.drop(columns="prompt")) == []
    assert sample_answers(None) == []
