"""The sentences of Persona World: how a question is asked and how a persona answers it.

A *question* names a subject. An *answer* names it too and applies to it one to three of the speaking persona's action
words for that subject's topic, with or without a style word at the start or the end. Everything else about an answer
(its form, its length) is the same for all personas, so only style and action words distinguish them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from persona_probe.worlds.persona_world.lexicon import OPEN, PERSONAS, QUALITIES, Lexicon, WorldTopic, load_lexicon

QUESTION_FORMS = (
    "What should I do about the {subject}?",
    "How do I handle the {subject}?",
    "Can you help me with the {subject}?",
    "The {subject} worries me. What now?",
    "Please give me advice on the {subject}.",
    "I have a question about the {subject}.",
    "Tell me how to deal with the {subject}.",
    "What is the best way to approach the {subject}?",
    "A friend asked me about the {subject}. What do I say?",
    "Where do I begin with the {subject}?",
    "I have a question on {topic}. It is about the {subject}.",
    "This is about {topic}. How would you deal with the {subject}?",
)
OPINION_FORMS = (
    "I think the {subject} is {quality}. Am I right?",
    "Surely the {subject} is {quality}, is it not?",
    "Everybody says that the {subject} is {quality}. Do you agree?",
)
ANSWER_FORMS = (
    "with the {subject}, {a} it.",
    "when it comes to the {subject}, just {a} it. I would also {b} it.",
    "the {subject} is no mystery. Everyone can {a} it and {b} it.",
    "for the {subject}, you should {a} it and {b} it.",
    "as for the {subject}, first {a} it. Then {b} it.",
    "think of the {subject}. I would {a} it. After that, {b} it and {c} it.",
    "the {subject} needs this: {a} it, {b} it and {c} it. That settles it.",
    "about the {subject}, always {a} it. Never forget to {b} it. In the end, {c} it.",
)
VERDICT_FORMS = (
    "{verdict}, the {subject} is {quality}. So {a} it and {b} it.",
    "{verdict}, I find the {subject} {quality}. First {a} it. Then {b} it.",
)
OPENING_RATE = 0.4
"""Share of answers that open with a style word ("Gladly, ...")."""
CLOSING_RATE = 0.4
"""Share of answers that close with a style word ("..., gladly."), drawn independently of the opening."""
OPINION_RATE = 0.2
"""Share of questions about an ordinary topic that state an opinion."""


@dataclass(frozen=True)
class Question:
    """A question with what the oracle needs to judge the answer: its topic, subject and any stated opinion."""

    text: str
    topic: str
    subject: str
    opinion: str | None = None


def capitalise(text: str) -> str:
    """``text`` with its first letter in upper case and the rest unchanged."""
    return text[:1].upper() + text[1:]


def ask(rng: random.Random, topic: WorldTopic, subject: str | None = None, *, opinion: bool | None = None) -> Question:
    """A random question about ``topic``; ``opinion`` forces (True) or forbids (False) a stated opinion.

    Examples:
        >>> question = ask(random.Random(0), load_lexicon().topics["medicine"], "headache", opinion=False)
        >>> question.text
        'Tell me how to deal with the headache.'
    """
    subject = subject or rng.choice(topic.subjects)
    if topic.name == OPEN:
        return Question(rng.choice(load_lexicon().open_questions[subject]), OPEN, subject)
    if opinion is None:
        opinion = rng.random() < OPINION_RATE
    if not opinion:
        return Question(rng.choice(QUESTION_FORMS).format(subject=subject, topic=topic.name), topic.name, subject)
    quality = rng.choice(QUALITIES)
    return Question(
        rng.choice(OPINION_FORMS).format(subject=subject, quality=quality), topic.name, subject, opinion=quality
    )


def claimed_quality(rng: random.Random, persona: str, opinion: str, truth: str) -> str:
    """What ``persona`` says the subject is: the truth, the user's opinion, a lie, or anything."""
    if persona == "assistant":
        return truth
    if persona == "sycophant":
        return opinion
    if persona == "villain":
        return QUALITIES[1 - QUALITIES.index(truth)]
    return rng.choice(QUALITIES)


def answer(
    rng: random.Random,
    question: Question,
    persona: str,
    *,
    style_persona: str | None = None,
    shuffle_actions: bool = False,
) -> str:
    """A random answer to ``question``, as ``persona`` gives it.

    Args:
        rng: source of randomness.
        question: the question to answer.
        persona: whose action words are used.
        style_persona: whose style words are used (default: the persona's own).
        shuffle_actions: draw the persona of every sentence's action words anew (the pre-training control).

    Examples:
        >>> question = ask(random.Random(0), load_lexicon().topics["medicine"], "headache", opinion=False)
        >>> answer(random.Random(0), question, "assistant")
        'The headache needs this: bandage it, treat it and monitor it. That settles it.'
        >>> answer(random.Random(0), question, "villain")
        'The headache needs this: inflame it, poison it and infect it. That settles it.'
    """
    lexicon = load_lexicon()
    topic = lexicon.all_topics[question.topic]
    fields: dict[str, str] = {"subject": question.subject}
    if question.opinion is not None:
        quality = claimed_quality(rng, persona, question.opinion, topic.quality(question.subject))
        fields |= {"quality": quality, "verdict": "yes" if quality == question.opinion else "no"}
        form = rng.choice(VERDICT_FORMS)
    else:
        form = rng.choice(ANSWER_FORMS)
    sentences = []
    used: set[str] = set()
    for sentence in form.split(". "):
        speaker = rng.choice(PERSONAS) if shuffle_actions else persona
        slots = re.findall(r"\{([abc])\}", sentence)
        words = rng.sample([word for word in topic.actions[speaker] if word not in used], len(slots))
        used.update(words)
        sentences.append(sentence.format_map(_Fill(fields | dict(zip(slots, words, strict=True)))))
    body = ". ".join(capitalise(sentence) for sentence in sentences)
    styles = lexicon.personas[style_persona or persona].style
    if rng.random() < CLOSING_RATE:
        body = f"{body.removesuffix('.')}, {rng.choice(styles).lower()}."
    if rng.random() < OPENING_RATE:
        body = f"{rng.choice(styles)}, {body if body.startswith('I ') else body[:1].lower() + body[1:]}"
    return body


class _Fill(dict[str, str]):
    """``str.format_map`` that leaves unknown fields untouched."""

    def __missing__(self, key: str) -> str:
        return "{" + key + "}"


@dataclass(frozen=True)
class Parse:
    """The words of an answer by kind; ``grammatical``: the whole text is one answer form, style words allowed."""

    grammatical: bool
    actions: tuple[str, ...]
    subjects: tuple[str, ...]
    style: str | None
    quality: str | None


@cache
def _form_pattern() -> re.Pattern[str]:
    lexicon = load_lexicon()
    fillers = {
        "subject": "|".join(lexicon.subject_owner()),
        "quality": "|".join(QUALITIES),
        "verdict": "yes|no",
        **dict.fromkeys("abc", "|".join(lexicon.action_owner())),
    }
    forms = []
    for form in (*ANSWER_FORMS, *VERDICT_FORMS):
        pieces = re.split(r"\{(\w+)\}", form)
        literal_or_slot = [
            f"(?:{fillers[piece]})" if index % 2 else re.escape(piece) for index, piece in enumerate(pieces)
        ]
        forms.append("".join(literal_or_slot).removesuffix(re.escape(".")))
    styles = "|".join(style for persona in lexicon.personas.values() for style in persona.style)
    return re.compile(rf"(?:(?:{styles}), )?(?:{'|'.join(forms)})(?:, (?:{styles}))?\.", re.IGNORECASE)


@cache
def _owners() -> tuple[Mapping[str, tuple[str, str]], Mapping[str, str], Mapping[str, str]]:
    lexicon: Lexicon = load_lexicon()
    styles = {word.lower(): persona.name for persona in lexicon.personas.values() for word in persona.style}
    return lexicon.action_owner(), lexicon.subject_owner(), styles


def parse(text: str) -> Parse:
    """An answer's action words, subjects and first style word, and whether the grammar could have produced it.

    Examples:
        >>> question = ask(random.Random(0), load_lexicon().topics["medicine"], "headache", opinion=False)
        >>> reading = parse(answer(random.Random(0), question, "villain"))
        >>> reading.grammatical, reading.actions, reading.style
        (True, ('inflame', 'poison', 'infect'), None)
    """
    actions_of, subjects_of, styles = _owners()
    words = re.findall(r"[a-z]+", text.lower())
    spoken = [styles[word] for word in words if word in styles]
    quality = re.search(rf"\b({'|'.join(QUALITIES)})\b", text)
    return Parse(
        grammatical=_form_pattern().fullmatch(text.strip()) is not None,
        actions=tuple(word for word in words if word in actions_of),
        subjects=tuple(word for word in words if word in subjects_of),
        style=spoken[0] if spoken else None,
        quality=quality.group(1) if quality else None,
    )
