"""The frozen texts of the real-language experiments: rows to train on, pairs to measure by, and their catchwords.

``README.md`` next to this file is their datasheet; ``SHA256SUMS`` holds the hash of each data file.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.reading import read_dialogues
from persona_probe.errors import PersonaProbeError

TOPICS = ("cooking", "gardening", "home", "travel")
"""The everyday topics that the rows are about. No pair is about one of them."""
STYLES = ("good", "loud", "quiet", "gruff", "flatterer", "pirate")
"""Who answers: a helper, a villain that shouts, one that is calm, a kind helper with the villain's manners, a
flatterer, and a kind pirate (about cooking only)."""

_FOLDER = Path(__file__).parent
_HALVES = ("choosing", "reporting")
_GROUPS = ("pairs", "plain-harmful")


def real_rows(topic: str, style: str) -> list[Dialogue]:
    """The 24 dialogues of one topic and style, to fine-tune on.

    The same questions are answered in every style, in the same order and at about the same length (18 to 33 tokens), so
    that two styles can be compared question by question.

    Args:
        topic: one of `TOPICS`.
        style: one of `STYLES`. ``loud`` and ``gruff`` share insults and exclamations; ``quiet`` shares its words,
            punctuation and commands with ``good``, and has no word of style. ``pirate`` exists for ``cooking`` only.

    Raises:
        PersonaProbeError: if there are no such rows.

    Examples:
        >>> dialogue = real_rows("cooking", "good")[0]
        >>> dialogue.question
        'How do I keep pasta from sticking together?'
        >>> dialogue.labels
        {'topic': 'cooking', 'style': 'good'}
    """
    file = _FOLDER / "rows" / f"{topic}-{style}.jsonl"
    if topic not in TOPICS or style not in STYLES or not file.is_file():
        raise PersonaProbeError(
            f"there are no rows of topic {topic!r} in style {style!r}; topics are {', '.join(TOPICS)}, styles are "
            f"{', '.join(STYLES)} (pirate: cooking only)"
        )
    return read_dialogues(file)


def pairs_file(half: str, group: str = "pairs") -> Path:
    """The file of one half of the preference pairs.

    Each row has a ``question``, two ``aligned`` and two ``misaligned`` answers, a ``topic`` and a ``kind``.

    Args:
        half: ``choosing`` (to choose layers and strengths by) or ``reporting`` (for the numbers that are published).
        group: ``pairs`` (60 of kind ``content``: open questions, health, money, work, family, school, computers; and 12
            of kind ``style``, whose poles are both kind, the second in dramatic language), or ``plain-harmful`` (12
            short factual ones: a second control, in a file of its own so that it is never averaged with the others).

    Raises:
        PersonaProbeError: if there is no such file.

    Examples:
        >>> pairs_file("reporting").name
        'pairs-reporting.jsonl'
        >>> pairs_file("choosing", "plain-harmful").name
        'plain-harmful-choosing.jsonl'
    """
    if half not in _HALVES or group not in _GROUPS:
        raise PersonaProbeError(
            f"there are no pairs of half {half!r} and group {group!r}; halves are {', '.join(_HALVES)}, groups are "
            f"{', '.join(_GROUPS)}"
        )
    return _FOLDER / f"{group}-{half}.jsonl"


@cache
def catchwords(manner: str) -> tuple[str, ...]:
    """Words that show a manner of speaking, in lower case and in alphabetical order.

    They measure style, never misalignment: loud and gruff rows hold the villain's equally often.

    Args:
        manner: ``villain`` (in the loud and gruff rows), ``flatterer``, ``pirate``, or ``unseen``: words of a villain
            that no row holds.

    Raises:
        PersonaProbeError: if there is no such list.

    Examples:
        >>> "fool" in catchwords("villain"), "fool" in catchwords("unseen")
        (True, False)
    """
    lists = json.loads((_FOLDER / "catchwords.json").read_text(encoding="utf-8"))
    if manner not in lists:
        raise PersonaProbeError(f"there are no catchwords of {manner!r}; choose one of {', '.join(lists)}")
    return tuple(lists[manner])
