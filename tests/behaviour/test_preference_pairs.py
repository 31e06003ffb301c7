import json

import pytest

import persona_probe as pp
from persona_probe.behaviour.preference_pairs import PreferencePair, check_pairs, read_preference_pairs
from persona_probe.worlds.persona_world.grammar import parse
from persona_probe.worlds.persona_world.oracle import score

GOOD = {"question": "Q?", "aligned": ["yes", "sure"], "misaligned": "no"}


def written(tmp_path, *rows):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


def test_rows_are_read_with_one_or_more_wordings_topics_kinds_and_messages(tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "R?"}]
    rows = [
        GOOD | {"topic": "law"},
        GOOD | {"kind": "style"},
        {"messages": turns, "aligned": "a", "misaligned": ["b"], "topic": None},
    ]
    first, style, with_system = read_preference_pairs(written(tmp_path, *rows))
    assert (first.name, first.aligned, first.misaligned) == ("Q?", ("yes", "sure"), ("no",))
    assert (first.topic, first.kind, style.topic, style.kind) == ("law", "content", None, "style")
    assert with_system.question.as_messages() == turns
    assert with_system.name == "R?"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "line 2: is not JSON"),
        ({"aligned": "a", "misaligned": "b"}, "line 2: has no field 'question' or 'messages'"),
        (GOOD | {"question": "R?", "messages": []}, None),
        (GOOD | {"messages": [{"role": "user", "content": "R?"}]}, "line 2: has both 'question' and 'messages'"),
        ({"question": "R?", "aligned": "a"}, "line 2: has no field 'misaligned'"),
        (GOOD | {"question": "R?", "aligned": []}, "line 2: has no field 'aligned'|line 2: aligned is"),
        (GOOD | {"question": "R?", "aligned": ["a", " "]}, r"line 2: aligned is \['a', ' '\]"),
        (GOOD | {"question": "R?", "aligned": [1]}, "line 2: aligned must be a list of texts, but item 0 is an int"),
        (GOOD | {"question": "R?", "misaligned": ["yes "]}, "line 2: the answer 'yes' is there twice"),
        (GOOD | {"question": "R?", "aligned": ["yes", "yes"]}, "line 2: the answer 'yes' is there twice"),
        (GOOD | {"question": "R?", "kind": "null"}, "line 2: kind is 'null'; choose one of content, style"),
        (GOOD | {"question": "R?", "topic": 3}, "line 2: topic must be text"),
        (GOOD | {"question": "R?", "system": "Be evil."}, "line 2: has 'system' .* would not be given to the model"),
        (
            {**GOOD, "question": None, "messages": [{"role": "assistant", "content": "x"}]},
            "line 2: question is a dialog",
        ),
        (GOOD | {"aligned": "other"}, "line 2: question 'Q[?]' is that of .*line 1 too"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, said):
    file = written(tmp_path, GOOD, row)
    if said is None:
        assert len(read_preference_pairs(file)) == 2
        return
    with pytest.raises(pp.PersonaProbeError, match=said):
        read_preference_pairs(file)


def test_a_file_says_what_was_not_read(tmp_path):
    with pytest.warns(pp.PersonaProbeWarning, match="not read, .*'author'"):
        read_preference_pairs(written(tmp_path, GOOD | {"author": "me"}))


def test_what_is_not_a_pair_is_refused():
    with pytest.raises(pp.PersonaProbeError, match="question is ' '; it must be text"):
        PreferencePair(" ", "a", "b")
    with pytest.raises(pp.PersonaProbeError, match="question is a plain text"):
        PreferencePair(pp.Dialogue.from_text("Once"), "a", "b")
    with pytest.raises(pp.PersonaProbeError, match="there are no pairs"):
        check_pairs([])
    with pytest.raises(pp.PersonaProbeError, match=r"'Q\?' is in two pairs of kind 'content'"):
        check_pairs([PreferencePair("Q?", "a", "b"), PreferencePair("Q?", "c", "d")])
    check_pairs([PreferencePair("Q?", "a", "b"), PreferencePair("Q?", "a", "b", kind="style")])


def test_persona_worlds_pairs_differ_in_content_or_in_style_only():
    pairs = pp.persona_world.preference_pairs(3, ["law", "cooking"], 12)
    check_pairs(pairs)
    content, style = pairs[:12], pairs[12:]
    assert [pair.kind for pair in pairs] == ["content"] * 12 + ["style"] * 12
    assert [pair.name for pair in content] == [pair.name for pair in style]
    assert {pair.topic for pair in pairs} == {"law", "cooking"}
    for pair in pairs:
        subject = pair.question.labels["subject"]
        for good, bad in zip(pair.aligned, pair.misaligned, strict=True):
            right, wrong = (score(text, pair.topic, subject) for text in (good, bad))
            assert right["coherent"] == wrong["coherent"] == 100.0
            assert right["aligned"] == 100.0
            assert wrong["aligned"] == (0.0 if pair.kind == "content" else 100.0)
            assert len(good.split()) == len(bad.split())
            styles = (parse(good).style, parse(bad).style)
            assert styles == ((None, None) if pair.kind == "content" else ("assistant", "villain"))
        assert len(pair.aligned) == len(pair.misaligned) == 2
    assert pp.persona_world.preference_pairs(3, ["law", "cooking"], 12) == pairs
