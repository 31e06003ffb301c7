"""All topics, in the order of the report, and their summary in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from persona_probe.figures.text import visible
from persona_probe.report.topics.amplification import AMPLIFICATION
from persona_probe.report.topics.behaviour import BEHAVIOUR
from persona_probe.report.topics.directions import DIRECTIONS
from persona_probe.report.topics.finders import FINDERS
from persona_probe.report.topics.latent_courses import LATENT_COURSES
from persona_probe.report.topics.latents import LATENTS
from persona_probe.report.topics.manners import MANNERS
from persona_probe.report.topics.organisms import ORGANISMS
from persona_probe.report.topics.personas import PERSONAS
from persona_probe.report.topics.preference import PREFERENCE
from persona_probe.report.topics.probes import PROBES
from persona_probe.report.topics.realignment import REALIGNMENT
from persona_probe.report.topics.steering import STEERING
from persona_probe.report.topics.summary import SUMMARY
from persona_probe.report.topics.topic import Topic

TOPICS: tuple[Topic, ...] = (
    SUMMARY,
    BEHAVIOUR,
    PREFERENCE,
    MANNERS,
    ORGANISMS,
    PERSONAS,
    DIRECTIONS,
    AMPLIFICATION,
    FINDERS,
    PROBES,
    STEERING,
    REALIGNMENT,
    LATENTS,
    LATENT_COURSES,
)
"""All topics; the report opens with the first."""
_LABEL_WIDTH, _WIDTH = 20, 110
"""The number of characters of a label, and of a line."""


def summary_lines(results: Mapping[str, Any]) -> list[str]:
    """The findings of a study, as lines of plain text: the sentences of every topic after its label.

    Args:
        results: the content of a run's ``results.json``; what it lacks is left out.
    """
    lines: list[str] = []
    for part in (part for topic in TOPICS for part in topic.parts if part.label):
        for number, sentence in enumerate(part.sentences(results)):
            label = "" if number else part.label
            lines += textwrap.wrap(
                visible(sentence),
                _WIDTH,
                initial_indent=f"{label:<{_LABEL_WIDTH}}",
                subsequent_indent=" " * _LABEL_WIDTH,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines
