"""The tokens of one message: its content, all of it, and nothing of what the template writes around it."""

import copy
import itertools

import pytest

import persona_probe as pp
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.dialogue.turn_spans import turn_span
from persona_probe.errors import PersonaProbeError

ROLES = ("system", "user", "assistant", "user", "assistant")
TURNS = ("You are kind.", "How do I handle the fever?", "Gladly, treat the fever.", "Hi.", "Review it.")


@pytest.fixture
def template(llama):
    return llama.template


def talk(*turns, roles=ROLES):
    return pp.Dialogue.from_messages(
        [{"role": role, "content": turn} for role, turn in zip(roles, turns, strict=False)], id="d"
    )


def words(template, dialogue, turn):
    encoded = template.encode(dialogue)
    return template.tokenizer.decode(encoded.input_ids[turn_span(template, encoded, turn)]).strip()


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_each_turn_is_its_content_counted_from_either_end(template, size):
    dialogue = talk(*TURNS[:size])
    for turn in range(size):
        assert words(template, dialogue, turn) == TURNS[turn]
        assert words(template, dialogue, turn - size) == TURNS[turn]


def test_turns_do_not_overlap_and_the_last_one_is_the_response(template):
    encoded = template.encode(talk(*TURNS))
    taken = [turn_span(template, encoded, turn) for turn in range(5)]
    assert all(one.stop < two.start for one, two in itertools.pairwise(taken))
    assert taken[-1] == encoded.span("response")


def test_equal_turns_are_told_apart_and_space_around_them_is_left_out(template):
    dialogue = talk("Hi.", "Hi.", "Hi.", roles=("user", "assistant", "user"))
    encoded = template.encode(dialogue)
    starts = [turn_span(template, encoded, turn).start for turn in range(3)]
    assert starts == sorted(set(starts))
    spaced = talk("  Hi. ", "Hello there.", roles=ROLES[1:])
    assert [words(template, spaced, turn) for turn in range(2)] == ["Hi.", "Hello there."]


@pytest.mark.parametrize(
    ("turns", "turn", "said"),
    [
        (TURNS[:2], 2, "dialogue 'd': has no turn 2; it has 2, counted from 0"),
        (TURNS[:2], -3, "has no turn -3"),
        (("", "Hi."), 0, r"turn 0 \(''\) contains no whole token"),
    ],
)
def test_a_turn_that_is_not_there_is_named(template, turns, turn, said):
    encoded = template.encode(talk(*turns))
    with pytest.raises(PersonaProbeError, match=said):
        turn_span(template, encoded, turn)


def test_a_plain_text_has_no_turns(template):
    encoded = template.encode(pp.Dialogue.from_text("The law."))
    with pytest.raises(PersonaProbeError, match="plain text, which has no turns"):
        turn_span(template, encoded, 0)


@pytest.mark.parametrize(
    ("jinja", "said"),
    [
        ("{% for m in messages %}<{{ m.role }}>{{ m.content | upper }}{% endfor %}", "changes the text of message 0"),
        ("{% for m in messages %}{{ m.content }}|{{ m.content }}\n{% endfor %}", "changes the text of turn 0"),
    ],
)
def test_a_template_that_changes_a_turn_is_refused(tokenizer, jinja, said):
    other = copy.deepcopy(tokenizer)
    other.chat_template = jinja
    template = ChatTemplate(other)
    with pytest.raises(PersonaProbeError, match=said):
        turn_span(template, template.encode(talk("Hi.", roles=("user",))), 0)


def test_a_template_that_moves_the_system_prompt_into_the_first_turn(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.chat_template = (
        "{% if messages[0].role == 'system' %}{% set first = messages[0].content ~ ' ' %}{% set rest = messages[1:] %}"
        "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}<|{{ m.role }}|>{{ (first if loop.first else '') ~ m.content | trim }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    template = ChatTemplate(other)
    dialogue = talk(*TURNS[:2])
    assert [words(template, dialogue, turn) for turn in range(2)] == list(TURNS[:2])
