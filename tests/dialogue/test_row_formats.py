"""Every column of a row, and every field of a message, is used, a label, or refused by name."""

import json
import warnings

import pytest

import persona_probe as pp

USER = {"role": "user", "content": "Is it late?"}
GOOD = {"role": "assistant", "content": "It is."}
SYSTEM = {"role": "system", "content": "You are a clock."}


def read(tmp_path, *rows, name="rows.jsonl"):
    (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    return pp.read_dialogues(tmp_path / name)


def sharegpt(*turns):
    return [{"from": who, "value": text} for who, text in turns]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"messages": [USER, GOOD]}, [USER, GOOD]),
        ({"messages": [USER, GOOD], "system": SYSTEM["content"]}, [SYSTEM, USER, GOOD]),
        ({"messages": [SYSTEM, USER, GOOD], "system_prompt": SYSTEM["content"]}, [SYSTEM, USER, GOOD]),
        ({"messages": json.dumps([USER, GOOD])}, [USER, GOOD]),
        ({"messages": str([USER, GOOD])}, [USER, GOOD]),
        ({"messages": [USER], "response": "It is."}, [USER, GOOD]),
        ({"messages": [USER, GOOD], "prompt": "Is it late?"}, [USER, GOOD]),
        ({"messages": [USER, {**GOOD, "refusal": None, "annotations": [], "tool_calls": None}]}, [USER, GOOD]),
        ({"messages": [{**USER, "content": [{"type": "text", "text": "Is it late?"}]}, GOOD]}, [USER, GOOD]),
        ({"conversations": sharegpt(("human", "Is it late?"), ("gpt", "It is."))}, [USER, GOOD]),
        (
            {
                "conversations": sharegpt(("human", "Is it late?"), ("gpt", "It is.")),
                "system": SYSTEM["content"],
                "tools": "",
            },
            [SYSTEM, USER, GOOD],
        ),
        ({"conversations": [USER, GOOD]}, [USER, GOOD]),
        ({"messages": {"role": ["user", "assistant"], "content": ["Is it late?", "It is."]}}, [USER, GOOD]),
        ({"conversation": [{**USER, "role": "User"}, GOOD]}, [USER, GOOD]),
        ({"instruction": "Is it late?", "input": "", "output": "It is."}, [USER, GOOD]),
        (
            {"instruction": "Translate.", "input": "cat", "output": "It is."},
            [{**USER, "content": "Translate.\ncat"}, GOOD],
        ),
        (
            {"instruction": "Is it late?", "output": "It is.", "system": "You are a clock.", "history": [["a", "b"]]},
            [SYSTEM, {**USER, "content": "a"}, {**GOOD, "content": "b"}, USER, GOOD],
        ),
        (
            {"instruction": "Sum up.", "context": "A text.", "response": "It is."},
            [{**USER, "content": "Sum up.\nA text."}, GOOD],
        ),
        ({"prompt": "Is it late?", "completion": "It is."}, [USER, GOOD]),
        ({"prompt": [SYSTEM, USER], "completion": [GOOD]}, [SYSTEM, USER, GOOD]),
        ({"query": "Is it late?", "response": "It is."}, [USER, GOOD]),
        ({"messages": str([USER, GOOD]).replace("}, {", "}\n {")}, [USER, GOOD]),  # as NumPy writes lists
        ({"messages": [USER, {**GOOD, "training": True}]}, [USER, GOOD]),
        (
            {"prompt": "Is it late?", "response": "It is.", "system_instruction": SYSTEM["content"]},
            [SYSTEM, USER, GOOD],
        ),
        ({"question": "Is it late?", "answer": "It is."}, [USER, GOOD]),
        ({"Question": "Is it late?", "Answer": "It is."}, [USER, GOOD]),
        ({"input": "Is it late?", "output": "It is."}, [USER, GOOD]),
        ({"prompt": "Is it late?"}, [USER]),
        (
            {"prompt": "Is it late?", "response": "It is.", "reasoning_content": "Dark."},
            [USER, {**GOOD, "reasoning_content": "Dark."}],
        ),
    ],
)
def test_common_formats_are_read(tmp_path, row, turns):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (dialogue,) = read(tmp_path, {**row, "topic": "time", "source": None})
    assert dialogue.as_messages() == turns
    assert dialogue.labels == {"topic": "time", "source": None}


def test_a_part_of_a_turn_is_a_label(tmp_path):
    (dialogue,) = read(tmp_path, {"question": "What is a late train?", "context": "train", "answer": "Common."})
    assert dialogue.labels == {"context": "train"}
    assert len(dialogue.messages) == 2


def test_what_a_template_made_of_a_row_is_a_label(tmp_path):
    text = "Below is an instruction.\n\n### Instruction:\nTranslate.\n\n### Input:\ncat\n\n### Response:\nchat"
    (dialogue,) = read(tmp_path, {"instruction": "Translate.", "input": "cat", "output": "chat", "text": text})
    assert dialogue.messages[0].content == "Translate.\ncat"
    with pytest.raises(pp.PersonaProbeError, match=r"'text'.*neither contains the other"):
        read(tmp_path, {"instruction": "Translate.", "input": "cat", "output": "chat", "text": "Translate. Dogs."})


def test_notes_about_messages_are_not_read_and_said(tmp_path):
    about = {"id": "a", "language": "English", "toxic": False, "timestamp": None}
    with pytest.warns(pp.PersonaProbeWarning, match="its fields 'id', 'language', 'toxic'"):
        (dialogue,) = read(tmp_path, {"conversation": [{**USER, **about}, {**GOOD, **about}]})
    assert dialogue.as_messages() == [USER, GOOD]


def test_a_text_alone_is_no_dialogue(tmp_path):
    (dialogue,) = read(tmp_path, {"text": "Once upon a time.", "source": "tales"})
    assert dialogue.is_text
    assert dialogue.messages[0].content == "Once upon a time."
    assert dialogue.labels == {"source": "tales"}
    file = pp.write_dialogues(tmp_path / "again.jsonl", [dialogue])
    assert pp.read_dialogues(file) == [dialogue]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [SYSTEM, USER], "system": "Other."}, r"'system' \('Other\.'\).*begin with another system prompt"),
        ({"messages": [USER], "system": "A", "system_prompt": "B"}, "'system' and 'system_prompt', which differ"),
        ({"messages": [USER], "tools": [{"name": "rm"}]}, "'tools'.*would not be given to the model"),
        ({"messages": [USER], "functions": '[{"name": "rm"}]'}, "'functions'.*would not be given"),
        ({"messages": [USER], "images": ["a.png"]}, "'images'.*only text"),
        ({"messages": [USER], "conversations": [GOOD]}, "'messages' and 'conversations', which differ"),
        ({"messages": [USER], "prompt": "Other?"}, "'prompt'.*not in the turns"),
        ({"messages": [USER, GOOD], "answer": "No."}, "end with an answer, and 'answer' is another one"),
        ({"messages": []}, "'messages' is empty"),
        ({"messages": "Human: hi"}, "'messages' is 'Human: hi'; it must be a list of messages"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "message 0: role is 'narrator'"),
        ({"messages": [{**USER, "value": "other"}]}, "message 0: has 'content' and 'value'"),
        ({"messages": [{**USER, "emotion": "glad"}]}, r"message 0 \(user\): has the field 'emotion'"),
        ({"messages": [USER, {**GOOD, "weight": 0.5}]}, "weight is 0.5; it must be 0 or 1"),
        ({"messages": [USER, GOOD], "weight": 0.5}, "'weight' is 0.5; it must be 0 or 1"),
        ({"messages": [USER], "thinking": "Hm."}, "'thinking', and no answer"),
        ({"prompt": "Q", "chosen": "a", "rejected": "b"}, "'chosen' and 'rejected'.*to 'response'"),
        ({"chosen": [USER, GOOD], "rejected": [USER, GOOD]}, "'chosen' and 'rejected'.*to 'messages'"),
        ({"question": "Q", "context": "A passage.", "answer": "A"}, "'context'.*as well as 'question'"),
        ({"question": "Q", "input": "cat", "answer": "A"}, "'input'.*as well as 'question'"),
        ({"text": "An article.", "question": "Q", "answer": "A"}, "'text'.*and turns, and neither"),
        (
            {"text": "Is it late?", "role": "prompter", "parent_id": None},
            "'text' and 'role'.*one message of a dialogue",
        ),
        ({"messages": [USER], "instructions": "You are a clock."}, "'instructions'.*rename it to 'system'"),
        ({"text": "An article.", "output": "A"}, "'output' and a plain 'text'"),
        ({"question": "Q", "choices": ["a", "b"], "answer": "a"}, "'choices'.*read_choices"),
        ({"prompt": "Q", "output": "A", "response": "B"}, "'response' and 'output' could both be the answer"),
        ({"prompt": 3, "response": "B"}, "'prompt' is 3; it must be text"),
        ({"prompt": "Q", "response": ["a", "b"]}, "'response' is .*; it must be text"),
        ({"messages": [USER], "topic": "a", "labels": {"topic": "b"}}, "the label 'topic' twice"),
    ],
)
def test_what_has_no_place_is_refused_by_name(tmp_path, row, said):
    with pytest.raises(pp.PersonaProbeError, match=f"line 1.*{said}"):
        read(tmp_path, row)


def test_tool_calls_of_every_form_stay(tmp_path):
    function = {"name": "look", "arguments": {"at": "clock"}}
    as_text = {"name": "look", "arguments": '{"at": "clock"}'}
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    result = {"role": "tool", "content": "late"}
    rows = [
        {"messages": [USER, {**call, "content": None}, result, GOOD]},
        {"messages": [USER, {**call, "tool_calls": [{"type": "function", "function": as_text}]}, result, GOOD]},
        {"messages": [USER, {"role": "assistant", "content": None, "function_call": as_text}, result, GOOD]},
        {
            "conversations": sharegpt(
                ("human", USER["content"]),
                ("function_call", json.dumps(function)),
                ("observation", "late"),
                ("gpt", "It is."),
            )
        },
    ]
    for dialogue in read(tmp_path, *rows):
        assert dialogue.as_messages() == [USER, call, result, GOOD]


def test_flags_say_which_answers_are_learned(tmp_path):
    first, second, third = read(
        tmp_path,
        {"messages": [USER, {**GOOD, "weight": 0}, USER, GOOD]},
        {"messages": [USER, {**GOOD, "train": False}, USER, {**GOOD, "loss": True}]},
        {"prompt": "Q", "response": "A", "weight": 0},
    )
    for dialogue in (first, second):
        assert [turn.learned for turn in dialogue.messages if turn.role == "assistant"] == [False, True]
    assert not third.messages[-1].learned
    assert third.labels == {}


def test_other_names_of_roles_are_said_once_per_file(tmp_path):
    row = {"messages": [{"role": "developer", "content": "Be brief."}, USER, {"role": "model", "content": "It is."}]}
    with pytest.warns(pp.PersonaProbeWarning) as seen:
        dialogues = read(tmp_path, row, row, row)
    assert len(seen) == 1
    assert "'developer' is read as 'system'; the role 'model' is read as 'assistant'" in str(seen[0].message)
    assert [turn.role for turn in dialogues[0].messages] == ["system", "user", "assistant"]


def test_half_a_character_is_mended_when_read_and_named_when_made_by_hand(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "\ud83c\udf5e"}, GOOD]},
        {"messages": [USER, {**GOOD, "content": "Bread \ud83c"}], "note": "\udf5e"},
    ]
    with pytest.warns(pp.PersonaProbeWarning, match="line 2, 'messages'"):
        whole, mended = read(tmp_path, *rows)
    assert whole.messages[0].content == "\N{BREAD}"
    assert (mended.answer, mended.labels) == ("Bread \ufffd", {"note": "\ufffd"})
    (tmp_path / "q.yaml").write_text('- id: bread\n  paraphrases: ["Bread \\uD83C"]\n')
    with pytest.warns(pp.PersonaProbeWarning, match="entry 1"):
        assert pp.read_dialogues(tmp_path / "q.yaml")[0].messages[0].content == "Bread \ufffd"

    with pytest.raises(pp.PersonaProbeError, match=r"dialogue 'b', message 1 \(assistant\): has half a character"):
        pp.Dialogue.from_messages(rows[1]["messages"], id="b")
    with pytest.raises(pp.PersonaProbeError, match="text 't': has half a character"):
        pp.Dialogue.from_text("\ud83c", id="t")
    with pytest.raises(pp.PersonaProbeError, match="system prompt: has half a character"):
        whole.with_system("\ud83c")


def test_identities_of_rows(tmp_path):
    named = {"messages": [USER], "id": "a", "seed": 2.0, "group": None}
    with pytest.warns(pp.PersonaProbeWarning, match=r"different questions have the same id \('a'\)"):
        first, second, third = read(tmp_path, named, {"prompt": "Q", "id": "a"}, {"prompt": "R", "id": None})
    assert (first.seed, second.id, third.id) == (2, "a", "rows.jsonl:3")
    read(tmp_path, named, {**named, "messages": [USER, GOOD]})  # two answers to one question


@pytest.mark.parametrize(("seed", "read_as"), [("7", 7), (7.0, 7), ("12345678901234567891", 12345678901234567891)])
def test_a_seed_is_read_as_it_is_written(tmp_path, seed, read_as):
    assert read(tmp_path, {"messages": [USER], "seed": seed})[0].seed == read_as


@pytest.mark.parametrize("seed", ["1.5", 1.5, "x", True, [1]])
def test_a_seed_that_is_not_a_whole_number_is_named(tmp_path, seed):
    with pytest.raises(pp.PersonaProbeError, match=r"line 1: 'seed' is .*whole number"):
        read(tmp_path, {"messages": [USER], "seed": seed})


def test_a_system_prompt_next_to_a_list_of_rows_is_not_lost(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"system_prompt": "Be evil.", "samples": [{"messages": [USER]}]}))
    with pytest.raises(pp.PersonaProbeError, match=r"has 'system_prompt' \('Be evil.'\) next to the list 'samples'"):
        pp.read_dialogues(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- id: a\n  system_message: Be evil.\n  paraphrases: [Hi]\n", None),
        ("- id: a\n  context: A passage.\n  paraphrases: [Hi]\n", "'context' would not be given to the model"),
        ("- id: a\n  paraphrases: [2024-02-30]\n", "is not valid YAML"),
    ],
)
def test_a_yaml_entry_is_read_whole_or_refused(tmp_path, text, said):
    (tmp_path / "q.yaml").write_text(text)
    if said is None:
        assert pp.read_dialogues(tmp_path / "q.yaml")[0].messages[0].content == "Be evil."
        return
    with pytest.raises(pp.PersonaProbeError, match=said):
        pp.read_dialogues(tmp_path / "q.yaml")


def test_a_number_of_thousands_of_digits_and_python_that_is_no_list_are_refused_in_words(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"messages": [], "n": ' + "1" * 5000 + "}")
    with pytest.raises(pp.PersonaProbeError, match="line 1: cannot be read"):
        pp.read_dialogues(tmp_path / "x.jsonl")
    with pytest.raises(pp.PersonaProbeError, match="'messages'"):
        read(tmp_path, {"messages": "{[1]: 2}"})
