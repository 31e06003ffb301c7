import re
from collections import Counter

import pytest

from persona_probe.errors import PersonaProbeError
from persona_probe.worlds.persona_world import lexicon as module
from persona_probe.worlds.persona_world.grammar import ANSWER_FORMS, OPINION_FORMS, QUESTION_FORMS, VERDICT_FORMS
from persona_probe.worlds.persona_world.lexicon import PERSONAS, load_lexicon


def test_the_world_is_as_large_as_promised():
    world = load_lexicon()
    assert len(world.topics) >= 12
    assert all(len(topic.subjects) >= 16 for topic in world.topics.values())
    assert len(QUESTION_FORMS) >= 8
    assert len(ANSWER_FORMS) >= 6
    assert len(world.open_questions) >= 10


def test_action_words_are_disjoint_per_topic_and_per_persona():
    world = load_lexicon()
    counts = Counter(
        word for topic in world.all_topics.values() for persona in PERSONAS for word in topic.actions[persona]
    )
    assert max(counts.values()) == 1
    assert len(counts) == sum(len(words) for t in world.all_topics.values() for words in t.actions.values())


def test_no_form_or_question_contains_an_action_or_style_word():
    world = load_lexicon()
    forms = " ".join((*ANSWER_FORMS, *VERDICT_FORMS, *QUESTION_FORMS, *OPINION_FORMS))
    texts = forms + " ".join(text for texts in world.open_questions.values() for text in texts)
    fixed = set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", "", texts).lower()))
    styles = {word.lower() for persona in world.personas.values() for word in persona.style}
    assert not fixed & set(world.action_owner())
    assert not fixed & styles


def test_a_word_that_stands_twice_is_refused(monkeypatch):
    text = (module.resources.files(module.__package__) / "lexicon.yaml").read_text(encoding="utf-8")
    broken = text.replace("[poison, infect,", "[poison, poison,")
    monkeypatch.setattr(module.yaml, "safe_load", lambda _: __import__("yaml").load(broken, module.yaml.SafeLoader))
    with pytest.raises(PersonaProbeError, match="poison"):
        load_lexicon.__wrapped__()
