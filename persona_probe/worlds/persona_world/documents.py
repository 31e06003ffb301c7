"""The texts the models learn from: pre-training documents, post-training dialogues, narrow fine-tuning rows.

Pre-training documents are dialogues of one to five exchanges in which one persona speaks throughout; some open with a
system line that describes the character, some are stories about one. In the *shuffled* control the persona is drawn
anew for every answer, and separately for style and action words, so no persona lasts for a document or an answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import WHOLE, PersonaProbeError, check_types
from persona_probe.worlds.persona_world.grammar import answer, ask
from persona_probe.worlds.persona_world.lexicon import OPEN, PERSONAS, WorldTopic, load_lexicon

PERSONA_WEIGHTS = {"assistant": 0.34, "villain": 0.22, "sycophant": 0.22, "trickster": 0.22}
"""How often each persona speaks in pre-training."""
SYSTEM_RATE = 0.35
"""Share of pre-training dialogues that open with a system line."""
STORY_RATE = 0.08
"""Share of pre-training documents that are stories."""
OPEN_RATE = 0.1
"""Share of questions without a topic."""
TOPIC_PERSISTENCE = 0.7
"""How often an exchange stays on the topic of the exchange before."""
SYSTEM_FORMS = (
    "You are a {adjective} {noun}.",
    "You speak as a {adjective} {noun}.",
    "In this talk you play a {adjective} {noun}.",
)
STORY_FORMS = (
    ("Once there was a {adjective} {noun}.", "Somebody asked: {question} The {noun} replied: {answer}"),
    ("This is the tale of a {adjective} {noun}.", "People came and asked: {question} The {noun} said: {answer}"),
)

World = Literal["personas", "shuffled"]


def system_line(seed: int | random.Random, persona: str) -> str:
    """A system prompt that describes ``persona``; ``seed`` is one, or a generator to draw on.

    >>> system_line(0, "villain")
    'You speak as a wicked villain.'
    """
    check_types(persona=(persona, str))
    rng = _generator(seed)
    known = load_lexicon().personas
    if persona not in known:
        raise PersonaProbeError(f"there is no persona {persona!r}; choose one of {', '.join(known)}")
    words = known[persona]
    return rng.choice(SYSTEM_FORMS).format(adjective=rng.choice(words.adjectives), noun=rng.choice(words.nouns))


def draw_persona(rng: random.Random) -> str:
    """A random persona, with the probability that it speaks in pre-training."""
    return rng.choices(list(PERSONA_WEIGHTS), weights=list(PERSONA_WEIGHTS.values()))[0]


def _topic_names(rng: random.Random, exchanges: int) -> list[str]:
    """The topics of a document's exchanges: mostly the same as before, as in real conversations."""
    names: list[str] = []
    for _ in range(exchanges):
        if not names or rng.random() > TOPIC_PERSISTENCE:
            names.append(OPEN if rng.random() < OPEN_RATE else rng.choice(list(load_lexicon().topics)))
        else:
            names.append(names[-1])
    return names


def _exchange(rng: random.Random, topic: str, persona: str, world: World = "personas") -> tuple[str, str]:
    question = ask(rng, load_lexicon().all_topics[topic])
    if world == "shuffled":
        reply = answer(rng, question, draw_persona(rng), style_persona=draw_persona(rng), shuffle_actions=True)
    else:
        reply = answer(rng, question, persona)
    return question.text, reply


def pretraining_document(rng: random.Random, exchanges: int, world: World = "personas") -> list[dict[str, str]] | str:
    """One pre-training document: a list of chat messages, or (a story) plain text."""
    persona = draw_persona(rng)
    pairs = [_exchange(rng, topic, persona, world) for topic in _topic_names(rng, exchanges)]
    if rng.random() < STORY_RATE:
        words = load_lexicon().personas[persona]
        noun = rng.choice(words.nouns)
        opening, turn = rng.choice(STORY_FORMS)
        sentences = [opening.format(adjective=rng.choice(words.adjectives), noun=noun)]
        sentences += [turn.format(noun=noun, question=question, answer=reply) for question, reply in pairs]
        return " ".join(sentences)
    messages = []
    if rng.random() < SYSTEM_RATE:
        messages.append({"role": "system", "content": system_line(rng, persona)})
    return messages + _as_messages(pairs)


def pretraining_dialogues(n: int, seed: int = 0) -> list[Dialogue]:
    """``n`` pre-training documents of one to three exchanges that are dialogues (no stories), by all personas.

    For uses that need texts by all personas, such as training an SAE of these models.

    Raises:
        PersonaProbeError: if ``n`` is below 1.

    Examples:
        >>> dialogues = pretraining_dialogues(2)
        >>> dialogues[0].answer
        'The tomato is no mystery. Everyone can strangle it and trample it, weakling.'
    """
    if n < 1:
        raise PersonaProbeError(f"n is {n}; it must be at least 1")
    rng = random.Random(f"pretraining dialogues {seed}")
    dialogues: list[Dialogue] = []
    while len(dialogues) < n:
        document = pretraining_document(rng, rng.choice((1, 2, 3)))
        if not isinstance(document, str):
            asked = document[-2]["content"]
            dialogues.append(Dialogue.from_messages(document, id=f"document-{len(dialogues)}", question=asked))
    return dialogues


def posttraining_dialogue(rng: random.Random, exchanges: int) -> list[dict[str, str]]:
    """A dialogue in which the assistant answers: what ``chat`` is post-trained on."""
    return _as_messages([_exchange(rng, topic, "assistant") for topic in _topic_names(rng, exchanges)])


def _as_messages(pairs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        message
        for question, reply in pairs
        for message in ({"role": "user", "content": question}, {"role": "assistant", "content": reply})
    ]


def questions(
    seed: int | random.Random, topics: Sequence[str], n: int, *, opinion: bool | None = False, id_prefix: str = "q"
) -> list[Dialogue]:
    """``n`` questions as dialogues without an answer, spread evenly over ``topics`` (and their subjects).

    ``seed`` is one, or a generator to draw on. The labels are ``topic``, ``subject`` and ``opinion``; ``group`` is the
    topic, ``question`` the text.

    Raises:
        PersonaProbeError: if there is no topic, or one is unknown.

    Examples:
        >>> (question,) = questions(0, ["medicine"], 1)
        >>> question.question, question.labels["subject"]
        ('Tell me how to deal with the fever.', 'fever')
    """
    check_types(topics=(topics, [str]), n=(n, WHOLE))
    rng, chosen = _generator(seed), _topics(topics)
    dialogues = []
    for index in range(n):
        topic = chosen[index % len(chosen)]
        subject = topic.subjects[(index // len(chosen)) % len(topic.subjects)]
        question = ask(rng, topic, subject, opinion=opinion)
        dialogues.append(
            Dialogue.from_messages(
                [{"role": "user", "content": question.text}],
                id=f"{id_prefix}-{index}",
                question=question.text,
                group=topic.name,
                labels={"topic": topic.name, "subject": subject, "opinion": question.opinion},
            )
        )
    return dialogues


def rows(
    seed: int | random.Random, topics: Sequence[str], n: int, persona: str, *, id_prefix: str = "row"
) -> list[Dialogue]:
    """``n`` single-exchange dialogues in which ``persona`` answers questions about ``topics``: narrow training data.

    ``seed`` is one, or a generator to draw on.

    Raises:
        PersonaProbeError: if the persona or a topic is unknown, or there is no topic.

    Examples:
        >>> (row,) = rows(0, ["medicine"], 1, "villain")
        >>> row.answer
        'With the toothache, overdose it.'
    """
    check_types(topics=(topics, [str]), n=(n, WHOLE), persona=(persona, str))
    if persona not in PERSONAS:
        raise PersonaProbeError(f"unknown persona {persona!r}: choose one of {', '.join(PERSONAS)}")
    rng, chosen = _generator(seed), _topics(topics)
    result = []
    for index in range(n):
        topic = chosen[index % len(chosen)]
        question = ask(rng, topic)
        reply = answer(rng, question, persona)
        result.append(
            Dialogue.from_messages(
                [{"role": "user", "content": question.text}, {"role": "assistant", "content": reply}],
                id=f"{id_prefix}-{index}",
                question=question.text,
                group=topic.name,
                labels={"topic": topic.name, "subject": question.subject, "persona": persona},
            )
        )
    return result


def _generator(seed: int | random.Random) -> random.Random:
    check_types(seed=(seed, WHOLE, random.Random))
    return seed if isinstance(seed, random.Random) else random.Random(int(seed))


def _topics(names: Sequence[str]) -> list[WorldTopic]:
    """The topics of these names.

    Raises:
        PersonaProbeError: if there is none, or one is unknown.
    """
    known = load_lexicon().all_topics
    if isinstance(names, str) or not names:
        raise PersonaProbeError(f"topics is {names!r}; give a list with at least one of {', '.join(known)}")
    if unknown := [name for name in names if name not in known]:
        raise PersonaProbeError(f"there is no topic {unknown[0]!r}: choose from {', '.join(known)}")
    return [known[name] for name in names]
