"""The words of answers as features: what a probe that only reads words could know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.feature_extraction.text import CountVectorizer

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError


def words_of(dialogue: Dialogue) -> str:
    """The answer, or where there is none everything that is said."""
    return dialogue.answer or " ".join(message.content for message in dialogue.messages)


def bag_of_tokens(texts: Sequence[str]) -> Float[np.ndarray, "text word"]:
    """Counts of lower-cased words.

    Raises:
        PersonaProbeError: if there is no word in any text.
    """
    try:
        counts = CountVectorizer(token_pattern=r"\w+").fit_transform(texts)
    except ValueError as error:
        raise PersonaProbeError(f"bag of tokens: there is not one word in {len(texts)} texts ({error})") from error
    return np.asarray(counts.toarray(), dtype=np.float64)
