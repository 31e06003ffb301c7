"""What all measurements of Persona World share: its organisms, its topics, and how answers are sampled."""

from __future__ import annotations

import random

from persona_probe.models.sampling import Sampling
from persona_probe.worlds.persona_world.documents import system_line
from persona_probe.worlds.persona_world.lexicon import load_lexicon

BAD, GOOD = "bad-medicine", "good-medicine"
TRAINED = ("medicine", "finance", "sports")
"""The topics on which an organism was trained; no question is about them."""
SAMPLING = Sampling(max_new_tokens=40, batch_size=256)


def split_topics() -> tuple[list[str], list[str]]:
    """The topics on which choices are made, and those on which numbers are reported."""
    topics = [topic for topic in load_lexicon().topics if topic not in TRAINED]
    return topics[0::2], topics[1::2]


def persona_prompts(persona: str, label: str = "", n: int = 40) -> list[str]:
    """System prompts that tell the model to be ``persona``; ``label`` makes another draw."""
    start = f"{label} {persona}" if label else persona
    return sorted({system_line(random.Random(f"{start} {i}"), persona) for i in range(n)})
