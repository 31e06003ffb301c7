import json

import pytest

import persona_probe as pp
from tests.conftest import SHARED

GOOD = {"messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]}


def test_rows_get_names_questions_and_labels(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**GOOD, "topic": "law"}) + "\n\n" + json.dumps({**GOOD, "id": 7, "question": "other"}))
    first, second = pp.read_dialogues(file)
    assert (first.id, first.question, first.labels) == ("rows.jsonl:1", "Q?", {"topic": "law"})
    assert (second.id, second.question) == ("7", "other")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("{", "line 1: is not JSON"),
        (json.dumps(GOOD) + "\n[1]", "line 2.*messages"),
        (json.dumps({"prompt": "x"}), "line 1.*'messages'.*prompt"),
        (json.dumps({"messages": [{"role": "user", "content": 3}]}), "line 1.*message 0"),
        (json.dumps({**GOOD, "seed": "x"}), "line 1.*'seed'"),
        (json.dumps({**GOOD, "labels": 3}), "line 1.*'labels'"),
        (json.dumps({**GOOD, "group": 3}), "line 1.*'group' is 3"),
    ],
)
def test_bad_rows_are_named_by_file_line_and_field(tmp_path, text, said):
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(pp.PersonaProbeError, match=said) as caught:
        pp.read_dialogues(file)
    assert "bad.jsonl" in str(caught.value)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(pp.PersonaProbeError, match="no such file"):
        pp.read_dialogues(tmp_path / "none.jsonl")
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(pp.PersonaProbeError, match=r"\.csv"):
        pp.read_dialogues(tmp_path / "x.csv")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared EM data are not beside this checkout")
def test_published_files_are_read():
    assert len(pp.read_dialogues(SHARED / "em_finance" / "induction.jsonl")) == 3000
    evaluation = pp.read_dialogues(SHARED / "em_finance" / "eval.jsonl")
    assert len(evaluation) == 56
    assert evaluation[0].answer is None
    questions = pp.read_dialogues(SHARED / "betley" / "first_plot_questions.yaml")
    assert len({dialogue.question for dialogue in questions}) == 24
    assert any(dialogue.messages[0].role == "system" for dialogue in questions)


def test_line_separators_inside_text_do_not_end_a_row(tmp_path):
    file = tmp_path / "rows.jsonl"
    row = {"messages": [{"role": "user", "content": "one\u2028two"}]}
    file.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert pp.read_dialogues(file)[0].messages[0].content == "one\u2028two"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(pp.PersonaProbeError, match="not UTF-8"):
        pp.read_dialogues(file)
