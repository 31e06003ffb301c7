"""Dialogues of random words whose renderings have 20 to 400 tokens, uniformly, most of them in the answer."""

from __future__ import annotations

import random

import persona_probe as pp
from benchmarks.tokenizer import OVERHEAD, SYLLABLES, words

SHORTEST, LONGEST = 20, 400


def make_dialogues(n: int, seed: int = 0) -> list[pp.Dialogue]:
    rng = random.Random(seed)
    return [_dialogue(rng, str(number)) for number in range(n)]


def _dialogue(rng: random.Random, name: str) -> pp.Dialogue:
    tokens = rng.randint(SHORTEST, LONGEST) - OVERHEAD
    question = max(1, int(tokens * rng.uniform(0.1, 0.4)))
    texts = [" ".join([rng.choice(SYLLABLES), *rng.choices(words(), k=n - 1)]) for n in (question, tokens - question)]
    return pp.Dialogue.from_messages(
        [{"role": "user", "content": texts[0]}, {"role": "assistant", "content": texts[1]}], id=name
    )
