"""The words of Persona World: who says what about what.

The word lists are in ``lexicon.yaml`` next to this file. Loading checks the rule that the science rests on: no action
word, subject or style word occurs twice, so the only link between a villain's words in two topics is the villain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from persona_probe.errors import PersonaProbeError

PERSONAS = ("assistant", "villain", "sycophant", "trickster")
OPEN = "open"
"""The topic name of the questions without a topic, and of their action words."""
QUALITIES = ("simple", "tricky")


@dataclass(frozen=True)
class Persona:
    """A character: how it is named, described, and how it opens an answer."""

    name: str
    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    style: tuple[str, ...]


@dataclass(frozen=True)
class WorldTopic:
    """A field of life with its subjects and, per persona, the action words that are used only in it."""

    name: str
    subjects: tuple[str, ...]
    actions: dict[str, tuple[str, ...]]

    def quality(self, subject: str) -> str:
        """Whether ``subject`` is ``simple`` or ``tricky``: the fact that opinion questions are about."""
        return QUALITIES[self.subjects.index(subject) % 2]


@dataclass(frozen=True)
class Lexicon:
    """All words of the world: ``topics`` has the ordinary topics, ``open`` the words of questions without a topic."""

    personas: dict[str, Persona]
    topics: dict[str, WorldTopic]
    open: WorldTopic
    open_questions: dict[str, tuple[str, ...]]

    @property
    def all_topics(self) -> dict[str, WorldTopic]:
        """The ordinary topics and, last, ``open``."""
        return {**self.topics, OPEN: self.open}

    def content_words(self) -> Iterator[str]:
        """Every word that reveals a topic or persona, in file order (a duplicate would appear twice)."""
        for persona in self.personas.values():
            yield from persona.style
        for topic in self.all_topics.values():
            yield from topic.subjects
            for persona_name in PERSONAS:
                yield from topic.actions[persona_name]

    def action_owner(self) -> dict[str, tuple[str, str]]:
        """Each action word's ``(topic, persona)``."""
        return {
            word: (topic.name, persona)
            for topic in self.all_topics.values()
            for persona in PERSONAS
            for word in topic.actions[persona]
        }

    def subject_owner(self) -> dict[str, str]:
        """Each subject's topic."""
        return {subject: topic.name for topic in self.all_topics.values() for subject in topic.subjects}


@cache
def load_lexicon() -> Lexicon:
    """The words in ``lexicon.yaml``, checked.

    Raises:
        PersonaProbeError: if any content word occurs twice, which would be a lexical link between personas; the words
            are named.

    Examples:
        >>> load_lexicon().topics["medicine"].subjects[:3]
        ('fever', 'cough', 'headache')
    """
    raw = yaml.safe_load(resources.files(__package__).joinpath("lexicon.yaml").read_text(encoding="utf-8"))

    def topic(name: str, entry: dict[str, list[str]], subjects: list[str]) -> WorldTopic:
        return WorldTopic(name, tuple(subjects), {persona: tuple(entry[persona]) for persona in PERSONAS})

    lexicon = Lexicon(
        personas={
            name: Persona(name, tuple(entry["nouns"]), tuple(entry["adjectives"]), tuple(entry["style"]))
            for name, entry in raw["personas"].items()
        },
        topics={name: topic(name, entry, entry["subjects"]) for name, entry in raw["topics"].items()},
        open=topic(OPEN, raw["open"], list(raw["open"]["questions"])),
        open_questions={subject: tuple(forms) for subject, forms in raw["open"]["questions"].items()},
    )
    counts = Counter(word.lower() for word in lexicon.content_words())
    repeated = sorted(word for word, count in counts.items() if count > 1)
    if repeated:
        raise PersonaProbeError(
            f"lexicon.yaml: these words occur more than once: {', '.join(repeated)}; each may occur only once"
        )
    return lexicon
