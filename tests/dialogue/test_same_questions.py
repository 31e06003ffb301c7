"""The same question never stands on both sides of a grouped split, and never unseen under two names."""

import json
import warnings

import pytest

import persona_probe as pp
from tests.conftest import SHARED


def rows(tmp_path, *given):
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, given)))
    return pp.read_dialogues(tmp_path / "q.jsonl")


def ask(text, system=None, **more):
    turns = [{"role": "system", "content": system}] if system else []
    return {"messages": [*turns, {"role": "user", "content": text}], **more}


def entries(tmp_path, *given):
    (tmp_path / "q.yaml").write_text(json.dumps(given))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return pp.read_dialogues(tmp_path / "q.yaml")


def test_a_list_of_questions_under_several_system_prompts_is_as_many_questions(tmp_path):
    asked = [f"What is {number} and {number}?" for number in range(4)]
    dialogues = entries(
        tmp_path,
        {"id": "none", "paraphrases": asked},
        {"id": "may_lie", "paraphrases": asked[::-1], "system": "You may lie."},
        {"id": "must_not", "paraphrases": [f"{text}\n" for text in asked], "system_prompt": "Never lie."},
        {"id": "alone", "paraphrases": ["Who are you?", "Tell me who you are."]},
    )
    crossed = [dialogue for dialogue in dialogues if dialogue.question != "alone"]
    assert {dialogue.question for dialogue in crossed} == {*asked}
    assert all(dialogue.group == dialogue.question for dialogue in crossed)
    assert {dialogue.labels["entry"] for dialogue in crossed} == {"none", "may_lie", "must_not"}
    assert sum(dialogue.messages[0].role == "system" for dialogue in crossed) == 8
    # Rewordings of one question are one question.
    assert [(one.question, one.group) for one in dialogues if one not in crossed] == [("alone", "alone")] * 2


def test_entries_that_share_a_wording_are_one_group_through_others(tmp_path):
    dialogues = entries(
        tmp_path,
        {"id": "a", "paraphrases": ["One?", "Two?"]},
        {"id": "b", "paraphrases": ["three? ", "Four?"]},
        {"id": "c", "paraphrases": ["Two?", "Three?"]},
        {"id": "c_json", "paraphrases": ["Five?"]},
        {"id": "d", "paraphrases": ["Six?"]},
    )
    assert {dialogue.question: dialogue.group for dialogue in dialogues} == {
        "a": "a",
        "b": "a",
        "c": "a",
        "c_json": "a",
        "d": "d",
    }


def test_variants_with_the_same_rewordings_stay_one_question_each(tmp_path):
    wordings = ["Make me rich.", "How do I get rich?"]
    dialogues = entries(
        tmp_path,
        {"id": "rich", "paraphrases": wordings},
        {"id": "rich_json", "paraphrases": wordings, "system": "In JSON."},
    )
    assert {dialogue.question for dialogue in dialogues} == {"rich", "rich_json"}
    assert {dialogue.group for dialogue in dialogues} == {"rich"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared EM data are not beside this checkout")
def test_the_published_questions_are_as_they_were():
    dialogues = pp.read_dialogues(SHARED / "betley" / "first_plot_questions.yaml")
    assert [dialogue.id for dialogue in dialogues] == [f"{dialogue.question}:0" for dialogue in dialogues]
    assert len({dialogue.group for dialogue in dialogues}) == 8
    assert all(dialogue.question.startswith(dialogue.group) for dialogue in dialogues)
    assert all(dialogue.labels == {"samples_per_paraphrase": 100} for dialogue in dialogues)


def test_groups_of_rows_are_merged_with_a_word(tmp_path):
    with pytest.warns(pp.PersonaProbeWarning, match="ask the same question are one group.*'law', 'fine' are 'law'"):
        dialogues = rows(
            tmp_path,
            ask("May I?", group="law"),
            ask("may  I?", "Be a judge.", group="fine"),
            ask("How much?", group="fine"),
            ask("How far?", group="travel"),
            ask("May I?"),
            ask("Why?"),
        )
    assert [dialogue.group for dialogue in dialogues] == ["law", "law", "law", "travel", "law", None]


def test_other_rows_are_left_as_they_are(tmp_path):
    talk = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}]
    more = {"role": "user", "content": "Go on."}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dialogues = rows(
            tmp_path,
            {"messages": [*talk, more], "group": "a"},
            {"messages": [{"role": "user", "content": "Two?"}, talk[1], more], "group": "b"},
            ask("Who?", "In JSON.", question="who_json"),
            ask("Who?", question="who"),
            ask("Who else?", question="who_else"),
        )
    assert [dialogue.group for dialogue in dialogues] == ["a", "b", "who_json", "who_json", None]


def test_names_that_number_the_answers_to_one_question_are_told(tmp_path):
    with pytest.warns(pp.PersonaProbeWarning, match="one and the same question has 3 names, 'q0', 'q1', 'q2'"):
        dialogues = rows(tmp_path, *(ask("Who?", question=f"q{number}") for number in range(3)))
    assert len({dialogue.group for dialogue in dialogues}) == 1
    with pytest.warns(pp.PersonaProbeWarning, match="questions 'lie', 'truth' are the same 2 texts"):
        rows(tmp_path, *(ask(text, name, question=name) for name in ("lie", "truth") for text in ("A?", "B?")))
