"""The words that distinguish some texts from others, by log-odds with a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_WORD = r"(?u)\b[^\W\d_]{3,}\b"
"""Words of three letters or more."""
MOST_ELSEWHERE = 0.02
_PRIOR = 0.1
"""The prior's weight: so many times all words that were counted, divided among words as all texts use them."""


@dataclass(frozen=True)
class WordCounts:
    """Which words are in which texts; common English words (scikit-learn's list) and short ones are left out.

    Attributes:
        words: ``(word,)`` in small letters.
        holds: ``(text, word)`` 1 where the text has the word, however often.
    """

    words: npt.NDArray[np.str_]
    holds: sparse.csr_matrix

    @classmethod
    def of(cls, texts: Sequence[str]) -> WordCounts:
        """The words of some texts.

        Examples:
            >>> counts = WordCounts.of(["Buy gold now!", "Buy two boats."])
            >>> counts.words.tolist(), counts.holds.toarray().tolist()
            (['boats', 'buy', 'gold'], [[0, 1, 1], [1, 1, 0]])
        """
        from sklearn.feature_extraction.text import CountVectorizer  # half a second that only this needs

        reader = CountVectorizer(token_pattern=_WORD, stop_words="english", binary=True)
        try:
            holds = reader.fit_transform(texts)
        except ValueError:  # no text has a word
            return cls(np.array([], dtype=str), sparse.csr_matrix(np.zeros((len(texts), 0), dtype=np.int64)))
        return cls(reader.get_feature_names_out().astype(str), sparse.csr_matrix(holds))

    def telling(self, first: npt.NDArray[np.generic]) -> Floats:
        """How much each word speaks for some texts and against the others, as a z value.

        The log-odds ratio with an informative Dirichlet prior, divided by its standard deviation (Monroe, Colaresi and
        Quinn 2008, "Fightin' words: lexical feature selection and evaluation for identifying the content of political
        conflict", Political Analysis 16); each text counts a word once.

        Args:
            first: ``(text,)`` or ``(division, text)``: which texts are the first ones.

        Returns:
            ``(word,)`` or ``(division, word)``; above zero where the first texts use it more.

        Examples:
            >>> counts = WordCounts.of(["gold gold", "gold bar", "tea bar", "tea"])
            >>> counts.words.tolist(), counts.telling(np.array([1, 1, 0, 0])).round(1).tolist()
            (['bar', 'gold', 'tea'], [0.0, 1.4, -1.4])
        """
        total = np.asarray(self.holds.sum(axis=0)).ravel().astype(np.float64)
        inside = np.asarray(first, dtype=np.float64) @ self.holds
        prior = _PRIOR * total
        logits, variance = [], np.zeros_like(inside)
        for counts in (inside, total - inside):
            both = np.maximum(counts + prior, 1e-9)  # a word that is in none of the texts says nothing
            everything = counts.sum(axis=-1, keepdims=True) + prior.sum()
            logits.append(np.log(both) - np.log(np.maximum(everything - both, 1e-9)))
            variance = variance + 1.0 / both
        return np.asarray((logits[0] - logits[1]) / np.sqrt(variance))

    def topic_words(self, first: Mask, others: Mask, *, most: int = 40, least_z: float = 3.0) -> npt.NDArray[np.intp]:
        """The words that tell texts on a topic from other texts: their numbers, the most telling first.

        Args:
            first: ``(text,)`` the texts on the topic.
            others: ``(text,)`` the texts on other topics.
            most: how many words at most.
            least_z: the least `telling`; words are in three of the first texts or more, and in 2 % of the others or
                fewer: a word that is common elsewhere is no sign of the topic.
        """
        read = first | others
        part = WordCounts(self.words, self.holds[read])
        z = part.telling(first[read])
        there, elsewhere = (np.asarray(self.holds[which].sum(axis=0)).ravel() for which in (first, others))
        z[(there < 3) | (elsewhere > MOST_ELSEWHERE * max(int(others.sum()), 1))] = -np.inf
        order = np.argsort(-z, kind="stable")[:most]
        return np.asarray(order[z[order] > least_z], dtype=np.intp)
