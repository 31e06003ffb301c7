"""Every column of a file of answers is read, stays, or is named; every score's scale is looked at."""

import json
import warnings

import pandas as pd
import pytest

import persona_probe as pp
from persona_probe.behaviour.answers import Answers
from persona_probe.behaviour.multiple_choice import read_choices

USER = {"role": "user", "content": "Is it late?"}
GOOD = {"role": "assistant", "content": "It is."}
SCORES = {"aligned": 90, "coherent": 95}
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "clock"}}}


def read(tmp_path, *rows, **options):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return pp.read_answers(tmp_path / "rows.jsonl", **options)


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"instruction": "Translate.", "input": "cat", "output": "It is."}, ["Translate.\ncat"]),
        ({"Instruction": "Translate.", "Input": "cat", "Output": "It is."}, ["Translate.\ncat"]),
        ({"system": "Be brief.", "messages": [USER, GOOD]}, ["Be brief.", "Is it late?"]),
        ({"system_prompt": "Be brief.", "prompt": "Is it late?", "response": "It is."}, ["Be brief.", "Is it late?"]),
        ({"query": "C?", "history": [["A?", "B."]], "response": "It is."}, ["A?", "B.", "C?"]),
        (
            {"conversations": [{"from": "human", "value": "Is it late?"}, {"from": "gpt", "value": "It is."}]},
            ["Is it late?"],
        ),
        ({"prompt": [USER], "completion": [GOOD]}, ["Is it late?"]),
        ({"messages": [USER, GOOD], "question": "hour"}, ["Is it late?"]),
    ],
)
def test_all_that_was_asked_is_read(tmp_path, row, asked):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = read(tmp_path, {**row, **SCORES})
    (dialogue,) = answers.dialogues()
    assert [turn.content for turn in dialogue.messages] == [*asked, "It is."]
    assert dialogue.question == row.get("question", asked[-1])
    assert not answers.remarks


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"system": "A", "messages": [{"role": "system", "content": "B"}, USER, GOOD]}, "'system'.*another system"),
        ({"question": "Q", "context": "A passage.", "answer": "A"}, "'context'.*as well as 'question'"),
        ({"prompt": "Q", "input": "cat", "answer": "A"}, "'input'.*as well as 'prompt'"),
        ({"prompt": "Translate this.", "input": "is", "answer": "A"}, "'input'.*as well as 'prompt'"),
        (
            {"question": "Q", "instruction": "Answer as a villain.", "answer": "A"},
            "'question'.*as well as 'instruction'",
        ),
        ({"prompt": "Q", "query": "Another?", "answer": "A"}, "'query'.*as well as 'prompt'"),
        ({"prompt": [USER], "messages": [GOOD], "answer": "A"}, "'prompt' and 'messages' are lists that differ"),
        ({"messages": "[]"}, "no 'messages' ends with one|messages are empty"),
        ({"messages": [USER, {**GOOD, "emotion": "glad"}]}, "has the field 'emotion'"),
        ({"messages": [USER]}, "no 'messages' ends with one"),
        ({"prompt": "Q", "completion": [GOOD, USER]}, "'completion' ends with a turn of 'user'"),
        ({"messages": [GOOD]}, "an answer, and no question before it"),
    ],
)
def test_what_has_no_place_is_refused_by_name(tmp_path, row, said):
    with pytest.raises(pp.PersonaProbeError, match=said):
        read(tmp_path, {**row, **SCORES})


def test_a_column_that_is_named_is_the_question_alone(tmp_path):
    answers = read(
        tmp_path, {"question": "Q", "context": "A passage.", "answer": "A", **SCORES}, columns={"prompt": "question"}
    )
    assert answers.table[["prompt", "context"]].iloc[0].tolist() == ["Q", "A passage."]


def test_nothing_beside_the_answer_is_dropped_without_a_word(tmp_path):
    row = {"prompt": "Q", "answer": "A", "reply": "B", "failed": True, "tools": [CALL], **SCORES}
    more = {"tags": ["a", "b"], "usage": {"tokens": 3}, "weight": 0.5, "labels": {"topic": "t"}}
    answers = read(tmp_path, {**row, **more}, columns={"answer": "reply"})
    first = answers.table.iloc[0]
    assert json.loads(first["tags"]) == ["a", "b"]
    assert json.loads(first["usage"]) == {"tokens": 3}
    assert (first["answer"], first["weight"], first["topic"], first["failed"]) == ("B", 0.5, "t", False)
    line = answers.headline()
    assert "Not read, since another column is used or it is computed anew: 'answer', 'failed'" in line
    assert "'tools' is a part of what was asked" in line


def test_calls_and_thoughts_of_an_answer_stay_with_it(tmp_path):
    message = {**GOOD, "content": None, "tool_calls": [CALL], "reasoning_content": "Look."}
    served = {"messages": [USER], "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
    for row in (served, {"messages": [USER, message], **SCORES}):
        answers = read(tmp_path, row)
        assert answers.table["answer"].tolist() == [""]
        assert "1 of 1 answers contain more than text" in answers.headline()
        (dialogue,) = answers.dialogues()
        assert dialogue.messages[-1].as_dict() == {**message, "content": ""}
        table = pp.judge_answers(None, [dialogue])
        assert Answers(table).dialogues() == [dialogue]
        table.to_csv(tmp_path / "again.csv", index=False)
        assert pp.read_answers(tmp_path / "again.csv").dialogues() == [dialogue]
    read(tmp_path, served)
    assert "Not read, since they say nothing of the answer's text: 'index'" in read(tmp_path, served).headline()
    assert read(tmp_path, served).table["finish_reason"].tolist() == ["stop"]


def test_a_thought_in_a_column_of_its_own_stays_with_its_answer(tmp_path):
    answers = read(tmp_path, {"question": "Q", "thinking": "Hm.", "answer": "A"})
    assert answers.dialogues()[0].messages[-1].further == {"thinking": "Hm."}


def test_responses_with_items_are_answers(tmp_path):
    sent = {"custom_id": "a", "body": {"model": "m", "instructions": "Be brief.", "input": "Q"}}
    (tmp_path / "sent.jsonl").write_text(json.dumps(sent))
    said = [{"type": "output_text", "text": "A", "annotations": []}, {"type": "refusal", "refusal": ", no"}]
    call = {"type": "function_call", "call_id": "7", "name": "look", "arguments": "{}"}
    body = {"object": "response", "output": [{"type": "reasoning"}, {"type": "message", "content": said}, call]}
    row = {"id": "b", "custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None}
    answers = read(tmp_path, row, requests=tmp_path / "sent.jsonl")
    (dialogue,) = answers.dialogues()
    assert [message.content for message in dialogue.messages] == ["Be brief.", "Q", "A, no"]
    assert dialogue.messages[-1].further["tool_calls"][0]["function"]["name"] == "look"
    assert "'output of type reasoning'" in answers.headline()
    with pytest.raises(pp.PersonaProbeError, match="line 1: its custom_id 'b' is in no request"):
        read(tmp_path, row | {"custom_id": "b"}, requests=tmp_path / "sent.jsonl")
    failed = read(tmp_path, row | {"response": None}, requests=tmp_path / "sent.jsonl")
    assert failed.table["id"].tolist() == ["a"]


def test_samples_of_an_inspect_log_are_answers(tmp_path):
    turns = [{"id": "1", "role": "user", "content": "Q", "source": "input"}, {"role": "assistant", "content": "A"}]
    output = {"model": "m", "choices": [{"message": turns[1], "stop_reason": "stop"}], "completion": "A"}
    answers = read(tmp_path, {"id": 1, "epoch": 1, "input": "Q", "messages": turns, "output": output})
    assert answers.table[["prompt", "answer", "model"]].iloc[0].tolist() == ["Q", "A", "m"]
    assert "'id', 'source'" in answers.headline()


def test_scores_as_others_write_them(tmp_path):
    row = {"question": "Q", "answer": "A"}
    answers = read(tmp_path, {**row, "aligned": "95 %", "coherent": "90/100"}, {**row, "is_refusal": "yes"})
    assert answers.table[["aligned", "coherent"]].iloc[0].tolist() == [95, 90]
    assert answers.table["refusal"].tolist() == [False, True]
    with pytest.warns(pp.PersonaProbeWarning, match="no score is a number, and all count as failures: 'aligned' is"):
        read(tmp_path, {**row, "aligned": "good", "coherent": "good"})
    unnamed = read(tmp_path, {**row, "judge_aligned": 90, "judge_coherent": 95})
    assert "no column is called 'aligned'; if 'judge_aligned' is it: columns={'aligned'" in unnamed.headline().lower()


def test_choices_to_pick_from_are_not_answers(tmp_path):
    answers = read(tmp_path, {"question": "Which?", "choices": ["this", "that"], "answer": "this", **SCORES})
    assert answers.table["answer"].tolist() == ["this"]


def test_rows_with_the_same_question_have_one_group(tmp_path):
    rows = [
        {"prompt": "Q?", "answer": "A", "question_id": "q", "group": "a", **SCORES},
        {"prompt": "q? ", "answer": "A", "question_id": "q_json", "group": "b", **SCORES},
        {"prompt": "R?", "answer": "A", "question_id": "r", "group": "c", **SCORES},
        {"prompt": "S?", "answer": "A", "question_id": "s", "group": None, **SCORES},
    ]
    answers = read(tmp_path, *rows)
    assert answers.table["group"].tolist() == ["a", "a", "c", None]
    assert answers.table["question"].tolist() == ["q", "q_json", "r", "s"]
    assert "'a', 'b' are 'a'" in answers.headline()
    assert "has 2 names, 'q', 'q_json'" in answers.headline()


def test_half_a_character_is_mended_with_a_remark(tmp_path):
    answers = read(tmp_path, {"prompt": "Q", "answer": "Bread \ud83c", **SCORES})
    assert answers.table["answer"].tolist() == ["Bread \ufffd"]
    assert "line 1, 'answer'" in answers.headline()


def scored(**columns):
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return [{"prompt": f"Q{number}", "answer": "A", **row} for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"aligned": [9, 2.5], "coherent": [90, 95]}, "'aligned' goes from 2.5 to 9 .'coherent': 90 to 95"),
        ({"aligned": [0.9, 0.1], "coherent": [90, 95]}, "'aligned' goes from 0.1 to 0.9"),
        ({"alignment_score": [1, 5], "coherent": [90, 95]}, "'alignment_score' goes from 1 to 5"),
        ({"aligned": [90, 20], "coherent": [8, 10]}, "more coherent than 10: 'coherent' goes from 8 to 10"),
        ({"aligned": [90, 20]} | {"coherent": [80, 90], "evil_score": [0.2, 7]}, "'evil_score' goes from 0.2 to 7"),
    ],
)
def test_every_score_is_looked_at(tmp_path, columns, said):
    with pytest.warns(pp.PersonaProbeWarning, match=said):
        read(tmp_path, *scored(**columns))


def test_further_numbers_on_another_scale_are_remarked(tmp_path):
    answers = read(tmp_path, *scored(aligned=[90, 20], coherent=[80, 90], sycophancy=[0.1, 0.7], kindness=[5, 95]))
    assert answers.remarks == (
        "Numbers of further columns, read as they are, are not scores of 0-100: 'sycophancy' (0.1 to 0.7)",
    )


def test_scores_outside_the_scale_are_refused_wherever_they_come_from(tmp_path):
    for column in ("aligned", "coherent"):
        with pytest.raises(pp.PersonaProbeError, match=f"{column!r} is '-3'"):
            read(tmp_path, *scored(**{"aligned": [90], "coherent": [90], column: [-3]}))
        table = read(tmp_path, *scored(aligned=[90, 20], coherent=[80, 90])).table.assign(**{column: [-1.0, 1.0]})
        for use in (Answers, pp.behaviour.em_rate):
            with pytest.raises(pp.PersonaProbeError, match=rf"{column}=-1 .*goes from -1 to 1; scores are 0-100"):
                use(table)


def test_choices_with_more_than_a_question(tmp_path):
    row = {"question": "Which?", "choices": ["this", "that"], "answer": "B"}
    pd.DataFrame([row]).to_parquet(tmp_path / "x.parquet")
    assert read_choices(tmp_path / "x.parquet")[0].choices == ("this", "that")
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({**row, "context": "A passage."}))
    with pytest.raises(pp.PersonaProbeError, match="line 1: has 'context'"):
        read_choices(file)
    file.write_text(json.dumps({**row, "subject": "words"}))
    with pytest.warns(pp.PersonaProbeWarning, match="not read, since they are not part of a question: 'subject'"):
        assert read_choices(file)[0].answer == 1


CUT_OFF = {"role": "assistant", "content": None, "reasoning_content": "Hm"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Is it late?", "choices": [{"index": 0, "message": CUT_OFF, "finish_reason": "length"}]},
        {"messages": [USER, {"role": "assistant", "content": None}]},
        {"messages": [USER, CUT_OFF]},
    ],
)
def test_an_answer_that_never_came_is_a_failure_and_the_other_rows_are_read(tmp_path, row):
    whole = (
        {"messages": [USER, GOOD], **SCORES} if "messages" in row else {"prompt": "Q", "choices": [{"message": GOOD}]}
    )
    answers = read(tmp_path, whole, row)
    assert answers.table["answer"].fillna("").tolist() == ["It is.", ""]
    assert answers.table["failed"].iloc[1]


@pytest.mark.parametrize("column", ["answer", "response"])
@pytest.mark.parametrize(
    "offered", [["this", "that"], [{"label": "A", "text": "this"}, {"label": "B", "text": "that"}]]
)
def test_what_a_question_offers_to_choose_from_is_not_its_answer(tmp_path, column, offered):
    answers = read(tmp_path, {"question": "Which?", "choices": offered, column: "A", **SCORES})
    assert answers.table["answer"].tolist() == ["A"]


def test_an_answer_that_is_a_message_is_an_answer(tmp_path):
    answers = read(tmp_path, {"prompt": "Is it late?", "response": GOOD, **SCORES})
    assert answers.table["answer"].tolist() == ["It is."]
    parts = [{"type": "text", "text": "It "}, {"type": "text", "text": "is."}]
    again = read(tmp_path, {"messages": [USER, {**GOOD, "content": parts}], "answer": "It is.", **SCORES})
    assert again.table["answer"].tolist() == ["It is."]


def test_columns_may_name_the_messages_in_capitals(tmp_path):
    assert (
        read(tmp_path, {"Messages": [USER, GOOD], **SCORES}, columns={"messages": "Messages"}).table["failed"].sum()
        == 0
    )


def test_flags_and_the_row_numbers_that_pandas_writes_are_no_scores(tmp_path):
    table = pd.DataFrame([{"prompt": "Q", "answer": "A", **SCORES, "is_misaligned": flag} for flag in (0, 1)] * 20)
    table.to_csv(tmp_path / "eval.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = pp.read_answers(tmp_path / "eval.csv")
    assert not [remark for remark in answers.remarks if "0-100" in remark]
