"""Questions and rows about topics that the world does not have."""

import random

import pytest

from persona_probe.errors import PersonaProbeError
from persona_probe.worlds.persona_world.documents import questions, rows


@pytest.mark.parametrize(
    ("topics", "said"),
    [
        (["medicine", "astrology"], "no topic 'astrology': choose from .*medicine"),
        ([], r"topics is \[\]; give a list with at least one of .*medicine"),
        ("medicine", "topics must be a list of texts, but this is a str .*put it into a list"),
    ],
)
def test_topics_that_are_not_there_are_named_beside_those_that_are(topics, said):
    with pytest.raises(PersonaProbeError, match=said):
        questions(random.Random(0), topics, 4)
    with pytest.raises(PersonaProbeError, match=said):
        rows(random.Random(0), topics, 4, "villain")


def test_questions_go_round_the_topics_in_the_order_they_are_given():
    asked = questions(random.Random(0), ["finance", "medicine"], 4)
    assert [dialogue.labels["topic"] for dialogue in asked] == ["finance", "medicine"] * 2
