import pytest

import persona_probe as pp

USER = {"role": "user", "content": "Hello"}


def test_round_trip_of_turns():
    dialogue = pp.Dialogue.from_messages([USER], id="a", labels={"topic": "x"})
    answered = dialogue.with_answer("Hi")
    assert answered.answer == "Hi"
    assert answered.without_answer() == dialogue
    assert dialogue.with_system("S").with_system("T").as_messages()[0] == {"role": "system", "content": "T"}
    assert answered.with_labels(model="after").labels == {"topic": "x", "model": "after"}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no messages"),
        ("hello", "list"),
        ([{"role": "robot", "content": "x"}], "'robot'"),
        ([{"role": "user"}], "None"),
        (["hi"], "message 0"),
    ],
)
def test_bad_messages_are_named(messages, said):
    with pytest.raises(pp.PersonaProbeError, match=said) as caught:
        pp.Dialogue.from_messages(messages, id="row-7")
    assert "row-7" in str(caught.value)
