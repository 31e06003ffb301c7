"""The words of answers as features: what a probe that only reads words could know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.feature_extraction.text import CountVectorizer


def bag_of_tokens(texts: Sequence[str]) -> Float[np.ndarray, "text word"]:
    """Counts of lower-cased words."""
    return np.asarray(CountVectorizer(token_pattern=r"\w+").fit_transform(texts).toarray(), dtype=np.float64)
